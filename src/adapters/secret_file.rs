//! Files that hold one secret: made once, readable by their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::domain::secret::SecretBytes;

/// The length of every such secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// No such file is longer: 32 bytes in base64 with a line end are 45.
const LONGEST_FILE: u64 = 64;

/// What is wrong with a secret's file.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileFault {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its content is no such secret.
    #[error(
        "{}: expected 32 bytes, raw or in base64; restore the file from its backup",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read it.
    #[error("{}: others than its owner have access to it; run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a secret of 32 bytes, raw or in base64; `None` where there is no file.
///
/// # Errors
/// [`SecretFileFault`].
pub fn read(path: &Path) -> Result<Option<SecretBytes>, SecretFileFault> {
    let at = |source| SecretFileFault::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(error)),
    };
    // Asked of the open file, so that it cannot be another one by now.
    if file.metadata().map_err(at)?.permissions().mode() & 0o077 != 0 {
        return Err(SecretFileFault::Exposed {
            path: path.to_owned(),
        });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(128));
    file.take(LONGEST_FILE + 1)
        .read_to_end(&mut content)
        .map_err(at)?;
    decode(&content)
        .map(Some)
        .ok_or_else(|| SecretFileFault::Malformed {
            path: path.to_owned(),
        })
}

fn decode(content: &[u8]) -> Option<SecretBytes> {
    if content.len() == SECRET_BYTES {
        return Some(SecretBytes::new(content.to_vec()));
    }
    let text = content.trim_ascii_end();
    let decoded = STANDARD.decode(text).ok().map(SecretBytes::new)?;
    (decoded.len() == SECRET_BYTES).then_some(decoded)
}

/// Makes the file with this secret, mode 0600, durably and never over a file
/// that is there. Its folder is made too, for the owner only.
///
/// # Errors
/// [`SecretFileFault::Io`].
pub fn create(path: &Path, secret: &SecretBytes) -> Result<(), SecretFileFault> {
    let at = |source| SecretFileFault::Io {
        path: path.to_owned(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(at)?;
    // Written beside its place and linked into it, so that no crash leaves half
    // a secret under the name; a link, unlike a rename, replaces nothing.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = write_new(&beside, secret).and_then(|()| fs::hard_link(&beside, path));
    let removed = fs::remove_file(&beside);
    written.map_err(at)?;
    removed.map_err(at)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at)
}

fn write_new(path: &Path, secret: &SecretBytes) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.expose())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SecretBytes {
        SecretBytes::new((0..32).collect())
    }

    #[test]
    fn what_was_created_reads_back_and_only_its_owner_can() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/along/secret");
        assert!(read(&path).expect("no file is no fault").is_none());
        create(&path, &secret()).expect("created");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = read(&path).expect("readable").expect("there");
        assert_eq!(read.expose(), secret().expose());
        let left = fs::read_dir(path.parent().expect("a parent")).expect("a folder");
        assert_eq!(left.count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_secret_is_never_written_over_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        create(&path, &secret()).expect("created");
        assert!(create(&path, &SecretBytes::new(vec![9; 32])).is_err());
        let read = read(&path).expect("readable").expect("there");
        assert_eq!(read.expose(), secret().expose());
    }

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn base64_is_read_too_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let text = format!("{}\n", STANDARD.encode(secret().expose()));
        write(&path, text.as_bytes(), 0o600);
        let read_back = read(&path).expect("readable").expect("there");
        assert_eq!(read_back.expose(), secret().expose());
        for bad in [
            &b""[..],
            b"short",
            &[7; 31],
            &[7; 33],
            &[b'A'; 64],
            &[b'A'; 500],
        ] {
            write(&path, bad, 0o600);
            let fault = read(&path).err();
            assert!(
                matches!(fault, Some(SecretFileFault::Malformed { .. })),
                "{} bytes",
                bad.len()
            );
        }
    }

    #[test]
    fn a_file_that_others_can_reach_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        for mode in [0o640, 0o604, 0o620, 0o644] {
            write(&path, secret().expose(), mode);
            let fault = read(&path).err();
            assert!(
                matches!(fault, Some(SecretFileFault::Exposed { .. })),
                "{mode:o}"
            );
        }
    }
}
