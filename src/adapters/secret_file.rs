//! Files that hold one secret of 32 bytes: made once, durable, readable by their
//! owner only. Knows nothing of what the secrets are for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::domain::secret::SecretBytes;

/// The length of every such secret, in bytes.
pub const SECRET_LEN: usize = 32;
/// The length of its base64 form: 32 bytes with padding.
const BASE64_LEN: usize = 44;
/// The most that is read of a file; longer than every form that is taken.
const READ_LIMIT: usize = 64;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileFault {
    /// Others than its owner may read or write the file.
    #[error(
        "{} has mode {mode:04o}, so others than its owner can reach it; run `chmod 600` on it, \
         and replace the key in it if it may have been read", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds neither 32 bytes nor the base64 of 32 bytes.
    #[error(
        "{} is neither 32 bytes nor 44 characters of base64 long; restore it from its backup",
        path.display()
    )]
    WrongSize {
        /// The file.
        path: PathBuf,
    },
    /// The file is as long as the base64 of 32 bytes and is something else.
    #[error(
        "{} has the length of base64 and is not the standard base64 of 32 bytes; restore it from \
         its backup", path.display()
    )]
    NotBase64 {
        /// The file.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("{} cannot be read; it must be a file that the service's user owns", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new secret was to be written where a file is already.
    #[error("{} is there already and stays as it is; start again to load it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("{} cannot be written; the service's user must be able to write there", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who lays a file out, and so decides who may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaidOutBy {
    /// The service: its own files are for nobody else.
    Service,
    /// The operator. Kubernetes lays a secret out with mode 0644 unless somebody
    /// says otherwise, and within a container there are no others: that is warned
    /// about and no more. A file that others can change is refused all the same.
    Operator,
}

impl LaidOutBy {
    const fn refuses(self) -> u32 {
        match self {
            Self::Service => 0o077,
            Self::Operator => 0o022,
        }
    }
}

/// What every user of the machine has.
const READABLE_BY_ALL: u32 = 0o004;

/// Loads a secret from a file of 32 raw bytes, or of their base64 with at most
/// one line end behind it; `None` when there is no such file.
///
/// # Errors
/// [`SecretFileFault::Exposed`], [`SecretFileFault::WrongSize`],
/// [`SecretFileFault::NotBase64`], [`SecretFileFault::Unreadable`]; each names the
/// file and says how to mend it.
pub fn load(path: &Path, by: LaidOutBy) -> Result<Option<SecretBytes>, SecretFileFault> {
    let unreadable = |source| SecretFileFault::Unreadable {
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
    if mode & by.refuses() != 0 {
        return Err(SecretFileFault::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    if mode & READABLE_BY_ALL != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = format_args!("{mode:04o}"),
            "every user of this machine can read this secret; run `chmod 600` on it"
        );
    }
    let mut content = Zeroizing::new([0u8; READ_LIMIT]);
    let length = read_up_to(file, &mut content[..]).map_err(unreadable)?;
    parse(&content[..length])
        .map(Some)
        .map_err(|malformed| malformed.at(path))
}

/// Makes a file with this secret: raw, readable by its owner only, and durable
/// before this returns, so that nothing comes to depend on a secret that a power
/// failure takes away. Its folder is made too, for the owner only.
///
/// # Errors
/// [`SecretFileFault::Exists`], which leaves the file that is there as it was;
/// [`SecretFileFault::Unwritable`].
pub fn create(path: &Path, secret: &SecretBytes) -> Result<(), SecretFileFault> {
    let unwritable = |source| SecretFileFault::Unwritable {
        path: path.to_owned(),
        source,
    };
    let folder = folder_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(unwritable)?;
    write_new(folder, path, secret.expose()).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => SecretFileFault::Exists {
            path: path.to_owned(),
        },
        _ => unwritable(source),
    })
}

/// Moves a secret's file over another one's, durably: at every moment there is
/// the one or the other in that place.
///
/// # Errors
/// [`SecretFileFault::Unwritable`].
pub fn replace(new: &Path, place: &Path) -> Result<(), SecretFileFault> {
    fs::rename(new, place)
        .and_then(|()| File::open(folder_of(place)))
        .and_then(|folder| folder.sync_all())
        .map_err(|source| SecretFileFault::Unwritable {
            path: place.to_owned(),
            source,
        })
}

/// Gives a secret's file a second name, durably, and never one that is taken.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`], and the operating system's others.
pub fn link(file: &Path, name: &Path) -> io::Result<()> {
    fs::hard_link(file, name)?;
    File::open(folder_of(name))?.sync_all()
}

/// Makes a secret's file durable that somebody else has written.
///
/// # Errors
/// The operating system's.
pub fn sync(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    File::open(folder_of(file))?.sync_all()
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What is wrong with a file's content.
enum Malformed {
    Size,
    Base64,
}

impl Malformed {
    fn at(self, path: &Path) -> SecretFileFault {
        let path = path.to_owned();
        match self {
            Self::Size => SecretFileFault::WrongSize { path },
            Self::Base64 => SecretFileFault::NotBase64 { path },
        }
    }
}

fn parse(content: &[u8]) -> Result<SecretBytes, Malformed> {
    // The raw form first: 32 random bytes may well end in a line end.
    if content.len() == SECRET_LEN {
        return Ok(SecretBytes::new(content.to_vec()));
    }
    let text = content.strip_suffix(b"\n").unwrap_or(content);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.len() != BASE64_LEN {
        return Err(Malformed::Size);
    }
    // One byte longer than the secret: the decoder asks for whole groups.
    let mut decoded = Zeroizing::new([0u8; SECRET_LEN + 1]);
    let length = STANDARD
        .decode_slice(text, &mut decoded[..])
        .map_err(|_| Malformed::Base64)?;
    if length != SECRET_LEN {
        return Err(Malformed::Base64);
    }
    Ok(SecretBytes::new(decoded[..length].to_vec()))
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
fn write_new(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut scratch_name = std::ffi::OsString::from(".");
    scratch_name.push(name);
    scratch_name.push(format!(".{}.new", Uuid::new_v4().simple()));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        (folder, path)
    }

    fn loaded(content: &[u8]) -> Result<Option<SecretBytes>, SecretFileFault> {
        let (_folder, path) = file(content, 0o600);
        load(&path, LaidOutBy::Service)
    }

    fn bytes_of(content: &[u8]) -> Vec<u8> {
        let secret = loaded(content).expect("loads").expect("is there");
        secret.expose().to_vec()
    }

    #[test]
    fn raw_and_base64_are_the_same_secret() {
        let raw = [0xfb; 32];
        let text = STANDARD.encode(raw);
        assert_eq!(bytes_of(&raw), raw);
        assert_eq!(bytes_of(text.as_bytes()), raw);
        assert_eq!(bytes_of(format!("{text}\n").as_bytes()), raw);
        assert_eq!(bytes_of(format!("{text}\r\n").as_bytes()), raw);
    }

    #[test]
    fn a_raw_secret_may_end_in_a_line_end() {
        assert_eq!(bytes_of(&[b'\n'; 32]), [b'\n'; 32]);
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        for length in [0, 1, 31, 33, 43, 46, 64, 65, 10_000] {
            let refused = loaded(&vec![b'A'; length]).err();
            assert!(
                matches!(refused, Some(SecretFileFault::WrongSize { .. })),
                "{length}"
            );
        }
    }

    #[test]
    fn text_of_the_right_length_that_is_no_base64_is_refused() {
        for text in ["A".repeat(44), "-".repeat(43) + "=", "A".repeat(42) + "=="] {
            assert!(matches!(
                loaded(text.as_bytes()).err(),
                Some(SecretFileFault::NotBase64 { .. })
            ));
        }
    }

    #[test]
    fn a_file_that_others_can_reach_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o660] {
            let (_folder, path) = file(&[1; 32], mode);
            let refused = load(&path, LaidOutBy::Service).err().expect("refused");
            assert!(
                matches!(refused, SecretFileFault::Exposed { mode: found, .. } if found == mode)
            );
            let text = refused.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            assert!(text.contains("chmod 600"), "{text}");
        }
        for mode in [0o600, 0o400] {
            let (_folder, path) = file(&[1; 32], mode);
            assert!(load(&path, LaidOutBy::Service).is_ok());
        }
    }

    #[test]
    fn a_file_of_the_operators_may_be_read_by_others_and_not_changed() {
        for (mode, is_taken) in [
            (0o440, true),
            (0o644, true),
            (0o620, false),
            (0o602, false),
            (0o666, false),
        ] {
            let (_folder, path) = file(&[1; 32], mode);
            assert_eq!(
                load(&path, LaidOutBy::Operator).is_ok(),
                is_taken,
                "{mode:o}"
            );
        }
    }

    #[test]
    fn no_file_is_no_secret_and_a_folder_is_a_fault() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(
            load(&folder.path().join("secret"), LaidOutBy::Service),
            Ok(None)
        ));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("set");
        assert!(matches!(
            load(folder.path(), LaidOutBy::Service),
            Err(SecretFileFault::Unreadable { .. })
        ));
    }

    #[test]
    fn what_was_created_loads_again_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/along/secret");
        create(&path, &SecretBytes::new(vec![7; 32])).expect("created");
        let loaded = load(&path, LaidOutBy::Service)
            .expect("loads")
            .expect("is there");
        assert_eq!(loaded.expose(), [7; 32]);
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let folder = path.parent().expect("a parent");
        assert_eq!(mode(folder), 0o700);
        let names: Vec<_> = fs::read_dir(folder).expect("a folder").collect();
        assert_eq!(names.len(), 1, "the scratch file is gone");
    }

    #[test]
    fn creating_never_replaces_a_file() {
        let (folder, path) = file(&[1; 32], 0o600);
        let refused = create(&path, &SecretBytes::new(vec![7; 32])).err();
        assert!(matches!(refused, Some(SecretFileFault::Exists { .. })));
        assert_eq!(fs::read(&path).expect("there"), [1; 32]);
        let names: Vec<_> = fs::read_dir(folder.path()).expect("a folder").collect();
        assert_eq!(names.len(), 1, "the scratch file is gone");
    }

    #[test]
    fn a_place_where_nothing_can_be_written_is_said_so() {
        let (_folder, path) = file(&[1; 32], 0o600);
        let refused = create(&path.join("below-a-file"), &SecretBytes::new(vec![7; 32])).err();
        assert!(matches!(refused, Some(SecretFileFault::Unwritable { .. })));
    }
}
