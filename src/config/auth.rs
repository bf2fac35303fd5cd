//! `auth.*`: the tokens of the identity service (M21).
//!
//! It knows where keys and names come from, and not how a token is checked.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::reader::Reader;
use super::secret::mask_address;
use super::value::{Outcome, Parsed, Raw, flag, list, module, quoted, text};
use crate::domain::ids::ModuleId;

/// How bearer tokens are judged.
pub struct Auth {
    /// Whether every request must carry a token.
    pub require_jwt: bool,
    /// The key set that signs tokens.
    pub jwks: Option<KeySetLocation>,
    /// The issuer a token must name.
    pub issuer: Option<String>,
    /// The audience a token must name.
    pub audience: Option<String>,
    /// The modules that may read the receipts of every tenant.
    pub auditors: Vec<ModuleId>,
}

impl Auth {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            require_jwt: reader.take("auth.require_jwt", flag),
            jwks: reader.take_optional("auth.jwks", key_set),
            issuer: reader.take_optional("auth.issuer", text),
            audience: reader.take_optional("auth.audience", text),
            auditors: reader.take("auth.auditors", list(module)),
        }
    }
}

/// Where a key set is read from.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySetLocation {
    /// A file.
    File(PathBuf),
    /// An address that begins with `http://` or `https://`. It can carry a
    /// password, so it has no `Debug`.
    Address(String),
}

impl KeySetLocation {
    /// Whether somebody on the way could replace the keys: fetched in the clear
    /// from another machine.
    pub(super) fn can_be_replaced_on_the_way(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Address(address) => goes_in_the_clear(address),
        }
    }
}

/// Whether what is sent to this address, or comes from it, is read on the way: over
/// `http` to another machine.
pub(super) fn goes_in_the_clear(address: &str) -> bool {
    after_scheme(address, "http").is_some_and(|rest| !is_loopback(host(rest)))
}

/// What follows `scheme://`, whose case does not matter (RFC 3986 §3.1).
fn after_scheme<'a>(address: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = address.split_once("://")?;
    found.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// The host of `user:password@host:port/path`. A backslash ends it too, since
/// clients read it as a slash.
fn host(rest: &str) -> &str {
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// A file or an address; the password of an address isn't shown.
pub(super) fn key_set(raw: &Raw) -> Outcome<KeySetLocation> {
    let Parsed { value, .. } = text(raw)?;
    let shown = quoted(&mask_address(&value));
    let is_address = ["http", "https"]
        .iter()
        .any(|scheme| after_scheme(&value, scheme).is_some());
    let value = if is_address {
        KeySetLocation::Address(value)
    } else if value.contains("://") || value.contains('\0') {
        return Err(
            "expected a path, or an address that begins with https:// or http://".to_owned(),
        );
    } else {
        KeySetLocation::File(PathBuf::from(value))
    };
    Ok(Parsed { value, shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<KeySetLocation, String> {
        key_set(&Raw::Variable(text.to_owned())).map(|set| set.value)
    }

    #[test]
    fn the_password_of_an_address_is_kept_but_not_shown() {
        let raw = Raw::Variable("https://kms:hunter2@iam/jwks.json".to_owned());
        let set = key_set(&raw).expect("an address");
        assert_eq!(set.shown, "\"https://kms:********@iam/jwks.json\"");
        let whole = "https://kms:hunter2@iam/jwks.json".to_owned();
        assert!(set.value == KeySetLocation::Address(whole));
    }

    #[test]
    fn an_address_begins_with_http_or_https_and_the_rest_are_files() {
        for address in ["http://iam/a", "https://iam/a", "HTTPS://iam/a"] {
            assert!(read(address) == Ok(KeySetLocation::Address(address.to_owned())));
        }
        for file in ["jwks.json", "/etc/kms/jwks.json", "http", "https:/iam"] {
            assert!(
                read(file) == Ok(KeySetLocation::File(file.into())),
                "{file}"
            );
        }
        for other in ["file:///etc/jwks.json", "ftp://iam/a", "://"] {
            assert!(read(other).is_err(), "{other}");
        }
    }

    #[test]
    fn only_this_machine_may_be_asked_in_the_clear() {
        for safe in [
            "jwks.json",
            "https://iam/a",
            "http://127.0.0.1/a",
            "http://127.0.0.1:8080",
            "http://user:pw@127.1.2.3:8080/a@b",
            "http://localhost:1/a",
            "http://[::1]:80/a",
        ] {
            let location = read(safe).map(|location| location.can_be_replaced_on_the_way());
            assert_eq!(location, Ok(false), "{safe}");
        }
        for unsafe_one in [
            "http://iam/a",
            "HTTP://iam/a",
            "http://127.0.0.1.example.com/a",
            "http://localhost@iam/a",
            "http://iam\\@localhost/a",
            "http://iam#@localhost",
            "http://iam?@localhost",
            "http://10.0.0.1/a",
            "http://[2001:db8::1]/a",
            "http://",
        ] {
            let location = read(unsafe_one).map(|location| location.can_be_replaced_on_the_way());
            assert_eq!(location, Ok(true), "{unsafe_one}");
        }
    }
}
