//! The key-encryption key and its file: where it comes from, what a file must
//! look like, and what is derived from it. Knows nothing of what it seals.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::aead::{AeadKey, fill_random};
use super::derivation::derive;
use crate::domain::algorithm::AeadAlgorithm;
use crate::ports::hsm::HsmFault;

/// The length of a key-encryption key, in bytes.
const KEK_LEN: usize = 32;
/// The length of its base64 form: 32 bytes with padding.
const KEK_BASE64_LEN: usize = 44;
/// The most that is read of a file; longer than every form that is taken.
const READ_LIMIT: usize = 64;
/// The length of the id of a key-encryption key, in bytes.
pub(super) const KEK_ID_LEN: usize = 8;

/// What the id is derived under.
const ID_INFO: &[u8] = b"kms key-encryption key id v1";
/// What the sealing key is derived under.
const SEALING_INFO: &[u8] = b"kms key-encryption key sealing AES-256-GCM v1";

/// The key that seals every stored secret.
///
/// Its own bytes are gone once it is loaded: only what is derived from them
/// stays, an id that is no secret and the sealing key, which lives in memory of
/// the cryptographic library and is erased with it.
pub struct KeyEncryptionKey {
    id: [u8; KEK_ID_LEN],
    sealing_key: AeadKey,
}

impl KeyEncryptionKey {
    /// Loads the key from a file of 32 raw bytes, or of their base64 with at most
    /// one line end behind it; `None` when there is no such file.
    ///
    /// # Errors
    /// [`KekFault::Exposed`], [`KekFault::WrongSize`], [`KekFault::NotBase64`],
    /// [`KekFault::Unreadable`]; each names the file and says how to mend it.
    pub fn load(path: impl AsRef<Path>) -> Result<Option<Self>, KekFault> {
        let path = path.as_ref();
        let unreadable = |source| KekFault::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        // Asked of the open file and not of the path, which could change between.
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KekFault::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let mut content = Zeroizing::new([0u8; READ_LIMIT]);
        let length = read_up_to(file, &mut content[..]).map_err(unreadable)?;
        let secret = parse(&content[..length]).map_err(|malformed| malformed.at(path))?;
        Self::derive(&secret).map(Some).map_err(KekFault::Library)
    }

    /// Makes a key and its file: 32 raw bytes, readable by their owner only, and
    /// durable before this returns, so that nothing is sealed under a key that a
    /// power failure takes away.
    ///
    /// # Errors
    /// [`KekFault::Exists`], which leaves the file that is there as it was: load
    /// that one; [`KekFault::Unwritable`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, KekFault> {
        let path = path.as_ref();
        let mut secret = Zeroizing::new([0u8; KEK_LEN]);
        fill_random(&mut secret[..]).map_err(KekFault::Library)?;
        let kek = Self::derive(&secret).map_err(KekFault::Library)?;
        write_new(path, &secret[..]).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KekFault::Exists {
                path: path.to_owned(),
            },
            _ => KekFault::Unwritable {
                path: path.to_owned(),
                source,
            },
        })?;
        Ok(kek)
    }

    /// The id in hexadecimal: 16 digits that tell one key from another and
    /// reveal nothing of either.
    pub fn id(&self) -> String {
        hexadecimal(&self.id)
    }

    pub(super) fn id_bytes(&self) -> &[u8; KEK_ID_LEN] {
        &self.id
    }

    pub(super) fn sealing_key(&self) -> &AeadKey {
        &self.sealing_key
    }

    pub(super) fn derive(secret: &[u8; KEK_LEN]) -> Result<Self, HsmFault> {
        let sealing_key = derive::<32>(secret, SEALING_INFO)?;
        Ok(Self {
            id: *derive::<KEK_ID_LEN>(secret, ID_INFO)?,
            sealing_key: AeadKey::new(AeadAlgorithm::Aes256Gcm, &sealing_key[..])?,
        })
    }
}

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
pub enum KekFault {
    /// Others than its owner may read or write the file.
    #[error(
        "the key-encryption key {} has mode {mode:04o}, so others than its owner can reach it; \
         run `chmod 600` on it, and replace the key if it may have been read", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds neither 32 bytes nor the base64 of 32 bytes.
    #[error(
        "the key-encryption key {} is neither 32 bytes nor 44 characters of base64 long; \
         restore it from its backup: with another key no stored secret opens", path.display()
    )]
    WrongSize {
        /// The file.
        path: PathBuf,
    },
    /// The file is as long as the base64 of 32 bytes and is something else.
    #[error(
        "the key-encryption key {} has the length of base64 and is not the standard base64 of \
         32 bytes; restore it from its backup: with another key no stored secret opens",
        path.display()
    )]
    NotBase64 {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error(
        "the key-encryption key {} cannot be read; it must be a file that the service's user owns",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new key was to be written where a file is already.
    #[error(
        "there is a key-encryption key {} already; it stays as it is, load it instead",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error(
        "the key-encryption key {} cannot be written; its folder must exist and the service's user \
         must be able to write there", path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cryptographic library failed, for instance for want of randomness.
    #[error("no key-encryption key can be made")]
    Library(#[source] HsmFault),
}

/// What is wrong with a file's content.
enum Malformed {
    Size,
    Base64,
}

impl Malformed {
    fn at(self, path: &Path) -> KekFault {
        let path = path.to_owned();
        match self {
            Self::Size => KekFault::WrongSize { path },
            Self::Base64 => KekFault::NotBase64 { path },
        }
    }
}

fn parse(content: &[u8]) -> Result<Zeroizing<[u8; KEK_LEN]>, Malformed> {
    // The raw form first: 32 random bytes may well end in a line end.
    if let Ok(raw) = <[u8; KEK_LEN]>::try_from(content) {
        return Ok(Zeroizing::new(raw));
    }
    let text = content.strip_suffix(b"\n").unwrap_or(content);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() != KEK_BASE64_LEN {
        return Err(Malformed::Size);
    }
    // One byte longer than the key: the decoder asks for whole groups.
    let mut decoded = Zeroizing::new([0u8; KEK_LEN + 1]);
    let length = STANDARD
        .decode_slice(text, &mut decoded[..])
        .map_err(|_| Malformed::Base64)?;
    <[u8; KEK_LEN]>::try_from(&decoded[..length])
        .map(Zeroizing::new)
        .map_err(|_| Malformed::Base64)
}

/// Reads until the end or until the buffer is full, without a buffer of its own
/// that nobody would erase.
fn read_up_to(mut source: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Writes a file that appears whole or not at all, and never over another one.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut tail = [0u8; 8];
    fill_random(&mut tail).map_err(io::Error::other)?;
    let mut scratch_name = std::ffi::OsString::from(".");
    scratch_name.push(name);
    scratch_name.push(format!(".{}.new", hexadecimal(&tail)));
    let scratch = Scratch(folder.join(scratch_name));

    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&scratch.0)?;
    file.write_all(content)?;
    file.sync_all()?;
    // A link, since a rename would replace a file that somebody else made meanwhile.
    fs::hard_link(&scratch.0, path)?;
    drop(scratch);
    File::open(folder)?.sync_all()
}

/// A file that goes when this does.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where nothing was written there is nothing to remove; what stays for
        // any other reason is readable by its owner only, as the key itself is.
        let _ = fs::remove_file(&self.0);
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(KeyEncryptionKey: Clone, std::fmt::Debug);

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kek");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        (folder, path)
    }

    fn load(content: &[u8]) -> Result<Option<KeyEncryptionKey>, KekFault> {
        let (_folder, path) = file(content, 0o600);
        KeyEncryptionKey::load(path)
    }

    fn id_of(content: &[u8]) -> String {
        load(content).expect("loads").expect("is there").id()
    }

    #[test]
    fn raw_and_base64_are_the_same_key() {
        let raw = [0xfb; 32];
        let text = STANDARD.encode(raw);
        let id = id_of(&raw);
        assert_eq!(id.len(), 16);
        assert_eq!(id_of(text.as_bytes()), id);
        assert_eq!(id_of(format!("{text}\n").as_bytes()), id);
        assert_eq!(id_of(format!("{text}\r\n").as_bytes()), id);
        assert_ne!(id_of(&[0xfc; 32]), id);
    }

    #[test]
    fn the_id_reveals_nothing_of_the_sealing_key_and_stays_the_same_for_ever() {
        let secret = [1; 32];
        let kek = KeyEncryptionKey::derive(&secret).expect("derives");
        let sealing_key = derive::<32>(&secret, SEALING_INFO).expect("derives");
        assert_ne!(sealing_key[..KEK_ID_LEN], kek.id);
        // Stores hold it, so no later version may derive another.
        assert_eq!(kek.id(), "6a3e0ec6472b5ab7");
    }

    #[test]
    fn a_raw_key_may_end_in_a_line_end() {
        assert!(load(&[b'\n'; 32]).is_ok());
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        for length in [0, 1, 31, 33, 43, 46, 64, 65, 10_000] {
            let refused = load(&vec![b'A'; length]).err();
            assert!(
                matches!(refused, Some(KekFault::WrongSize { .. })),
                "{length}"
            );
        }
    }

    #[test]
    fn text_of_the_right_length_that_is_no_base64_is_refused() {
        for text in ["A".repeat(44), "-".repeat(43) + "=", "A".repeat(42) + "=="] {
            assert!(matches!(
                load(text.as_bytes()).err(),
                Some(KekFault::NotBase64 { .. })
            ));
        }
    }

    #[test]
    fn a_file_that_others_can_reach_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o660] {
            let (_folder, path) = file(&[1; 32], mode);
            let refused = KeyEncryptionKey::load(&path).err().expect("refused");
            assert!(matches!(refused, KekFault::Exposed { mode: found, .. } if found == mode));
            let text = refused.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            assert!(text.contains("chmod 600"), "{text}");
        }
        for mode in [0o600, 0o400] {
            let (_folder, path) = file(&[1; 32], mode);
            assert!(KeyEncryptionKey::load(path).is_ok());
        }
    }

    #[test]
    fn no_file_is_no_key_and_a_folder_is_a_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = KeyEncryptionKey::load(folder.path().join("kek"));
        assert!(matches!(missing, Ok(None)));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("set");
        assert!(matches!(
            KeyEncryptionKey::load(folder.path()),
            Err(KekFault::Unreadable { .. })
        ));
    }

    #[test]
    fn a_created_key_loads_again_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kek");
        let created = KeyEncryptionKey::create(&path).expect("created");
        let loaded = KeyEncryptionKey::load(&path).expect("loads");
        assert_eq!(loaded.map(|kek| kek.id()), Some(created.id()));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(names.len(), 1, "the scratch file is gone");
    }

    #[test]
    fn creating_never_replaces_a_file() {
        let (folder, path) = file(&[1; 32], 0o600);
        let refused = KeyEncryptionKey::create(&path).err();
        assert!(matches!(refused, Some(KekFault::Exists { .. })));
        assert_eq!(fs::read(&path).expect("there"), [1; 32]);
        let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(names.len(), 1, "the scratch file is gone");
    }

    #[test]
    fn a_missing_folder_is_said_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = KeyEncryptionKey::create(folder.path().join("no/kek")).err();
        assert!(matches!(refused, Some(KekFault::Unwritable { .. })));
    }

    #[test]
    fn two_created_keys_differ() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = KeyEncryptionKey::create(folder.path().join("one")).expect("created");
        let other = KeyEncryptionKey::create(folder.path().join("other")).expect("created");
        assert_ne!(one.id(), other.id());
    }
}
