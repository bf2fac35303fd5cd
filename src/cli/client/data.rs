//! What a client reads and writes: in bounded amounts, and without copies that nobody
//! erases.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use crate::cli::fault::Fault;
use crate::config::LARGEST_BODY;
use crate::domain::secret::SecretBytes;

/// How much is read first where nobody knows how much there is, in bytes.
const FIRST_READ: usize = 64 * 1024;

/// The most data that any service takes at once, in bytes: in base64 it fills the
/// largest body there can be.
pub(super) const MOST_DATA: usize = LARGEST_BODY / 4 * 3;

/// A file that is named, and not by `-`, which is standard input or output.
pub(super) fn named(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| *path != Path::new("-"))
}

/// The file's content, or that of standard input.
pub(super) fn read(path: Option<&Path>, most: usize) -> Result<SecretBytes, Fault> {
    match path {
        Some(path) => read_file(path, most),
        None => read_standard_input(most),
    }
}

pub(super) fn read_file(path: &Path, most: usize) -> Result<SecretBytes, Fault> {
    let fault = |error: io::Error| Fault::failed(format_args!("{}: {error}", path.display()));
    let file = File::open(path).map_err(fault)?;
    // One more, so that the end is found without growing.
    let expected = file.metadata().map_err(fault)?.len().saturating_add(1);
    read_all(file, expected, most)
        .map_err(fault)?
        .ok_or_else(|| too_long(&path.display().to_string(), most))
}

pub(super) fn read_standard_input(most: usize) -> Result<SecretBytes, Fault> {
    read_all(io::stdin().lock(), FIRST_READ as u64, most)
        .map_err(|error| Fault::failed(format_args!("standard input: {error}")))?
        .ok_or_else(|| too_long("standard input", most))
}

fn too_long(what: &str, most: usize) -> Fault {
    Fault::failed(format_args!(
        "{what} holds more than {most} bytes, which is the most there can be"
    ))
}

/// Everything, or `None` where there is more. What is outgrown is erased.
fn read_all(mut source: impl Read, expected: u64, most: usize) -> io::Result<Option<SecretBytes>> {
    let first = usize::try_from(expected).unwrap_or(most).min(most + 1);
    let mut buffer = Zeroizing::new(vec![0; first]);
    let mut length = 0;
    loop {
        if length == buffer.len() {
            if length > most {
                return Ok(None);
            }
            let mut larger = Zeroizing::new(vec![0; (2 * length).min(most + 1).max(1)]);
            larger[..length].copy_from_slice(&buffer);
            buffer = larger;
        }
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(length);
    Ok((length <= most).then(|| SecretBytes::new(std::mem::take(&mut *buffer))))
}

/// The parts one after the other.
pub(super) fn joined(parts: &[&[u8]]) -> SecretBytes {
    SecretBytes::new(parts.concat())
}

/// Where a result goes: a new file, or standard output.
pub(super) struct Destination {
    path: Option<PathBuf>,
}

impl Destination {
    /// The file, which must not be there yet, in a folder that can be written to: known
    /// before the service is asked, which counts what it does.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, Fault> {
        if let Some(path) = path {
            if fs::symlink_metadata(path).is_ok() {
                return Err(exists(path));
            }
            let folder = match path.parent() {
                Some(folder) if folder != Path::new("") => folder,
                _ => Path::new("."),
            };
            access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
                Fault::failed(format_args!(
                    "{}: the folder cannot be written to: {}",
                    path.display(),
                    io::Error::from(error)
                ))
            })?;
        }
        Ok(Self {
            path: path.map(Path::to_owned),
        })
    }

    /// Writes a secret: into a file for its owner only, or as it is.
    pub(super) fn write_secret(&self, secret: &SecretBytes) -> Result<(), Fault> {
        let steers = |c: char| c.is_control() && !"\t\n".contains(c);
        let is_text = std::str::from_utf8(secret.expose()).is_ok_and(|text| !text.contains(steers));
        if self.path.is_none() && !is_text && io::stdout().is_terminal() {
            return Err(Fault::failed(
                "the plaintext is no text, and standard output is a terminal, which it could \
                 steer: write it to a file (--out) or into a pipe",
            ));
        }
        self.write(secret.expose(), 0o600)
    }

    /// Writes what is no secret.
    pub(super) fn write_public(&self, bytes: &[u8]) -> Result<(), Fault> {
        self.write(bytes, 0o666)
    }

    fn write(&self, bytes: &[u8], mode: u32) -> Result<(), Fault> {
        let Some(path) = &self.path else {
            // Not through the usual buffer, which is a copy that nobody erases.
            let stdout = io::stdout().as_fd().try_clone_to_owned()?;
            return Ok(File::from(stdout).write_all(bytes)?);
        };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path);
        let mut file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(exists(path));
            }
            Err(error) => return Err(Fault::failed(format_args!("{}: {error}", path.display()))),
        };
        file.write_all(bytes).map_err(|error| {
            // Half of it is worse than nothing.
            let _ = fs::remove_file(path);
            Fault::failed(format_args!("{}: {error}", path.display()))
        })
    }
}

fn exists(path: &Path) -> Fault {
    Fault::failed(format_args!(
        "{} is there already, and nothing is written over",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_read_or_nothing() {
        let source = b"0123456789";
        for expected in [0, 1, 5, 10, 11, 100] {
            let read = |most| {
                let read = read_all(&source[..], expected, most).expect("read");
                read.map(|bytes| bytes.expose().to_vec())
            };
            assert_eq!(read(10).as_deref(), Some(&source[..]), "{expected}");
            assert_eq!(read(11).as_deref(), Some(&source[..]), "{expected}");
            assert_eq!(read(9), None, "{expected}");
        }
    }
}
