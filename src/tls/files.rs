//! Reading what the operator laid out: PEM, and DER where it is usual.
//!
//! Knows files, and not what is in force. Every fault names the setting, the
//! file and the way to mend it, and repeats nothing of what is in a file.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::ports::material::MaterialFault;

/// The most that is read of one file. A revocation list of a hundred thousand
/// certificates has about 4 MiB.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// The most files that are read of one folder.
const MOST_FILES: usize = 1_024;

/// What nobody but the owner may do with a private key: put another in its place.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What is warned about and no more: a Kubernetes secret has mode 0644 unless
/// somebody says otherwise, and within a container there are no others.
const READABLE_BY_ALL: u32 = 0o004;

/// A file and the setting that it comes from.
pub(super) struct Source<'a> {
    pub(super) setting: &'static str,
    pub(super) path: &'a Path,
}

impl Source<'_> {
    /// A fault in this file.
    pub(super) fn fault(&self, what: impl std::fmt::Display) -> MaterialFault {
        MaterialFault::new(format!(
            "{} ({}): {what}",
            self.setting,
            self.path.display()
        ))
    }

    fn fault_of(
        &self,
        what: &str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> MaterialFault {
        MaterialFault {
            source: Some(Box::new(source)),
            ..self.fault(what)
        }
    }

    fn read(&self) -> Result<Vec<u8>, MaterialFault> {
        let unreadable = |source| {
            self.fault_of(
                "cannot be read; it must be a file that the service's user may read",
                source,
            )
        };
        let file = File::open(self.path).map_err(unreadable)?;
        let mut content = Vec::new();
        file.take(LARGEST_FILE + 1)
            .read_to_end(&mut content)
            .map_err(unreadable)?;
        if content.len() as u64 > LARGEST_FILE {
            return Err(self.fault("is larger than 16 MiB, which is no such file"));
        }
        Ok(content)
    }

    /// The certificates of this PEM file, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, MaterialFault> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.read()?).collect();
        let found = found.map_err(|error| self.fault_of("is not whole as PEM", error))?;
        if found.is_empty() {
            return Err(self.fault(
                "has no certificate in it; it must be PEM, beginning with \
                 -----BEGIN CERTIFICATE-----",
            ));
        }
        Ok(found)
    }

    /// The one private key of this PEM file: PKCS#8, PKCS#1 or SEC 1.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, MaterialFault> {
        let mode = fs::metadata(self.path)
            .map_err(|source| self.fault_of("cannot be read", source))?
            .permissions()
            .mode()
            & 0o777;
        if mode & WRITABLE_BY_OTHERS != 0 {
            return Err(self.fault(format_args!(
                "has mode {mode:04o}, so others can change the key; run `chmod 600` on it (or 640 \
                 for a group that may read it), and replace the key if it may have been read"
            )));
        }
        if mode & READABLE_BY_ALL != 0 {
            tracing::warn!(
                setting = self.setting,
                file = %self.path.display(),
                mode = format_args!("{mode:04o}"),
                "every user of this machine can read this private key; run `chmod 600` on it"
            );
        }
        let content = Zeroizing::new(self.read()?);
        let mut found = PrivateKeyDer::pem_slice_iter(&content);
        let key = found
            .next()
            .ok_or_else(|| {
                self.fault(
                    "has no private key in it that can be used; it must be PEM, not encrypted: \
                     PKCS#8 (BEGIN PRIVATE KEY), PKCS#1 or SEC 1",
                )
            })?
            // Not kept as the source: nothing of a key may reach the log.
            .map_err(|_| self.fault("is not whole as PEM"))?;
        if found.next().is_some() {
            return Err(self.fault("has more than one private key in it; leave the right one"));
        }
        Ok(key)
    }

    /// The revocation lists of this file, at least one: PEM, or one in DER.
    pub(super) fn revocation_lists(
        &self,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, MaterialFault> {
        let content = self.read()?;
        // DER begins with the tag of a SEQUENCE, which no PEM does.
        if content.first() == Some(&0x30) {
            return Ok(vec![content.into()]);
        }
        let found: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&content).collect();
        let found = found.map_err(|error| self.fault_of("is not whole as PEM", error))?;
        if found.is_empty() {
            return Err(self.fault(
                "has no revocation list in it; it must be PEM, beginning with \
                 -----BEGIN X509 CRL-----, or DER",
            ));
        }
        Ok(found)
    }
}

/// The files that a setting means: the file itself, or those of a folder with
/// one of these endings, by name. Names that begin with a dot are not meant:
/// Kubernetes keeps `..data` and its dated folders there.
pub(super) fn expand(
    setting: &'static str,
    path: &Path,
    endings: &[&str],
) -> Result<Vec<PathBuf>, MaterialFault> {
    let source = Source { setting, path };
    let unreadable = |error| {
        source.fault_of(
            "cannot be read; it must be a file or a folder that the service's user may read",
            error,
        )
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let is_hidden = file
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_meant = file.extension().is_some_and(|ending| {
            endings
                .iter()
                .any(|meant| ending.eq_ignore_ascii_case(meant))
        });
        if !is_hidden && is_meant && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(source.fault(format_args!(
            "is a folder without a file that ends in .{}; put one there",
            endings.join(" or .")
        )));
    }
    if files.len() > MOST_FILES {
        return Err(source.fault("is a folder with more than 1,024 such files; join them"));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, folder_with, with_mode};
    use super::*;

    fn source(path: &Path) -> Source<'_> {
        Source {
            setting: "tls.some_setting",
            path,
        }
    }

    #[track_caller]
    fn says<T>(result: Result<T, MaterialFault>, words: &[&str]) {
        let what = result.err().expect("a fault").what;
        for word in words.iter().chain(&["tls.some_setting"]) {
            assert!(what.contains(word), "{word} in {what}");
        }
    }

    #[test]
    fn what_is_not_there_or_not_it_is_named_with_the_way_to_mend_it() {
        let folder = folder_with(&[
            ("empty.pem", ""),
            ("cut.pem", "-----BEGIN CERTIFICATE-----\nAA"),
        ]);
        let (missing, empty, cut) = (
            folder.path().join("no.pem"),
            folder.path().join("empty.pem"),
            folder.path().join("cut.pem"),
        );
        with_mode(&empty, 0o600);
        says(source(&missing).certificates(), &["no.pem", "may read"]);
        says(
            source(&empty).certificates(),
            &["empty.pem", "BEGIN CERTIFICATE"],
        );
        says(source(&cut).certificates(), &["cut.pem", "not whole"]);
        says(source(&empty).private_key(), &["PKCS#8"]);
        says(source(&empty).revocation_lists(), &["BEGIN X509 CRL"]);
        says(source(&missing).private_key(), &["cannot be read"]);
    }

    #[test]
    fn a_private_key_that_others_can_change_is_refused() {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let folder = folder_with(&[("key.pem", &key)]);
        let path = folder.path().join("key.pem");
        for (mode, is_taken) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o640, true),
            (0o660, false),
            (0o644, true),
            (0o620, false),
            (0o602, false),
            (0o666, false),
        ] {
            with_mode(&path, mode);
            let read = source(&path).private_key();
            assert_eq!(read.is_ok(), is_taken, "{mode:o}");
            if !is_taken {
                says(read, &["chmod 600", &format!("{mode:04o}")]);
            }
        }
    }

    #[test]
    fn two_private_keys_are_one_too_many() {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let folder = folder_with(&[("key.pem", &format!("{key}{key}"))]);
        let path = folder.path().join("key.pem");
        with_mode(&path, 0o600);
        says(source(&path).private_key(), &["more than one"]);
    }

    #[test]
    fn a_folder_is_its_files_without_what_kubernetes_hides_in_it() {
        let ca = Authority::new("ca");
        let folder = folder_with(&[
            ("b.pem", &ca.pem()),
            ("a.CRT", &ca.pem()),
            (".hidden.pem", "not this"),
            ("readme.txt", "not this"),
        ]);
        fs::create_dir(folder.path().join("..2026_01_01.pem")).expect("a folder");
        std::os::unix::fs::symlink("..2026_01_01.pem", folder.path().join("..data.pem"))
            .expect("a link");
        fs::create_dir(folder.path().join("c.pem")).expect("a folder");
        let files = expand("tls.some_setting", folder.path(), &["pem", "crt"]).expect("files");
        let names: Vec<_> = files
            .iter()
            .filter_map(|file| file.file_name()?.to_str())
            .collect();
        assert_eq!(names, ["a.CRT", "b.pem"]);
        says(
            expand("tls.some_setting", folder.path(), &["crl"]),
            &[".crl"],
        );
        says(
            expand("tls.some_setting", &folder.path().join("none"), &["crl"]),
            &["cannot be read"],
        );
    }
}
