//! `store.*`: where metadata lives.
//!
//! It knows how a store is named, and opens nothing.

use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::secret::mask_address;
use super::value::{Outcome, Parsed, Raw, quoted};
use crate::domain::secret::SecretBytes;

/// The store.
pub struct Store {
    /// Which one, and where.
    pub url: StoreUrl,
}

/// A store's address.
pub enum StoreUrl {
    /// An embedded database in this file (`sqlite:PATH`).
    Sqlite(PathBuf),
    /// A PostgreSQL server; the whole address is a secret, as a password may be in it.
    Postgres(SecretBytes),
    /// This process's memory, gone when it ends (`memory:`).
    Memory,
}

impl Store {
    pub(super) fn read(reader: &mut Reader, data_dir: &Path) -> Self {
        Self {
            url: reader.take_or("store.url", store_url, || {
                let path = data_dir.join("kms.db");
                Parsed {
                    shown: quoted(&format!("sqlite:{}", path.display())),
                    value: StoreUrl::Sqlite(path),
                }
            }),
        }
    }
}

fn store_url(raw: &Raw) -> Outcome<StoreUrl> {
    let text = raw.text().unwrap_or_default();
    let is_postgres = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.len() > scheme.len() && text.starts_with(scheme));
    let (value, shown) = if text == "memory:" {
        (StoreUrl::Memory, text.to_owned())
    } else if is_postgres {
        (
            StoreUrl::Postgres(SecretBytes::from(text.to_owned())),
            mask_address(text),
        )
    } else if let Some(path) = text.strip_prefix("sqlite:").filter(|path| is_file(path)) {
        (StoreUrl::Sqlite(PathBuf::from(path)), text.to_owned())
    } else {
        return Err(
            "expected sqlite:PATH, postgres://USER@HOST/DATABASE or memory:, \
             the path being that of a file"
                .to_owned(),
        );
    };
    Ok(Parsed {
        value,
        shown: quoted(&shown),
    })
}

/// SQLite takes some names for a database in memory or for an address with
/// options, which would get a store that forgets past the rule against one.
fn is_file(path: &str) -> bool {
    let is_special = path.starts_with(':') || path.starts_with("//") || path.starts_with("file:");
    !path.is_empty() && !path.contains('\0') && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<StoreUrl> {
        store_url(&Raw::Variable(text.to_owned()))
    }

    #[test]
    fn each_store_is_told_by_its_scheme() {
        assert!(read("sqlite:/var/kms.db").is_ok_and(
            |p| matches!(p.value, StoreUrl::Sqlite(path) if path == Path::new("/var/kms.db"))
        ));
        for text in ["postgres://u@h/d", "postgresql://u@h/d"] {
            assert!(
                read(text).is_ok_and(|p| matches!(p.value, StoreUrl::Postgres(_))),
                "{text}"
            );
        }
        assert!(read("memory:").is_ok_and(|p| matches!(p.value, StoreUrl::Memory)));
    }

    #[test]
    fn an_embedded_store_that_is_no_file_is_refused() {
        for text in [
            "sqlite:",
            "sqlite::memory:",
            "sqlite:file:x?mode=memory",
            "sqlite://x",
            "mysql://h",
            "postgres://",
            "memory",
            "kms.db",
            "",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_password_of_a_store_is_kept_but_not_shown() {
        let Ok(parsed) = read("postgres://kms:hunter2@db/kms") else {
            panic!("a store");
        };
        assert_eq!(parsed.shown, "\"postgres://kms:********@db/kms\"");
        assert!(matches!(
            parsed.value,
            StoreUrl::Postgres(url) if url.expose() == b"postgres://kms:hunter2@db/kms"
        ));
    }
}
