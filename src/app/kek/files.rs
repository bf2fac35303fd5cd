//! The files of the key-encryption keys: the one in force, one that is to take its
//! place, and those from before. Knows nothing of what is sealed under them.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::adapters::hsm::software::kek::{KekFault, KeyEncryptionKey};
use crate::adapters::secret_file::{self, LaidOutBy};
use crate::config::Config;
use crate::ports::material::MaterialFault;

/// Where the key-encryption keys lie: `<kek>`, `<kek>.next` and `<kek>.old`
/// (`<kek>.old.1` and so on where that is taken).
#[derive(Clone)]
pub(crate) struct KekFiles {
    kek: PathBuf,
    by: LaidOutBy,
}

impl KekFiles {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            kek: config.kek_file(),
            by: match config.hsm.software.kek_file {
                Some(_) => LaidOutBy::Operator,
                None => LaidOutBy::Service,
            },
        }
    }

    #[cfg(test)]
    pub(super) fn at(kek: PathBuf, by: LaidOutBy) -> Self {
        Self { kek, by }
    }

    /// The file of the key in force.
    pub(crate) fn kek(&self) -> &Path {
        &self.kek
    }

    /// The file of the key that is to take its place.
    pub(crate) fn next(&self) -> PathBuf {
        self.with_ending(".next")
    }

    /// The key in the file of the key in force.
    pub(crate) fn load(&self) -> Result<Option<KeyEncryptionKey>, KekFault> {
        KeyEncryptionKey::load(&self.kek, self.by)
    }

    /// The key that is to take its place.
    pub(crate) fn load_next(&self) -> Result<Option<KeyEncryptionKey>, KekFault> {
        KeyEncryptionKey::load(self.next(), self.by)
    }

    /// The keys from before, the newest first, each with its file. One that cannot
    /// be read is passed over with a warning.
    pub(crate) fn load_old(&self) -> Vec<(PathBuf, KeyEncryptionKey)> {
        let mut found = Vec::new();
        for path in self.old_names() {
            match KeyEncryptionKey::load(&path, self.by) {
                Ok(Some(kek)) => found.push((path, kek)),
                Ok(None) => break,
                Err(fault) => tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "a key-encryption key from before cannot be read"
                ),
            }
        }
        found.reverse();
        found
    }

    /// Makes the next key durable where it lies, as far as this is allowed to:
    /// nothing may come to be sealed under a key that a power failure takes away.
    pub(super) fn make_next_durable(&self) {
        if let Err(error) = secret_file::sync(&self.next()) {
            tracing::warn!(
                file = %self.next().display(),
                %error,
                "this file cannot be made durable; a new key-encryption key has to be"
            );
        }
    }

    /// Sees to it that the key of this id, which is in force, lies in its place; the
    /// one that was there is kept under another name. At every moment there is one
    /// in that place, and whatever the moment of a crash this goes on from there.
    ///
    /// # Errors
    /// [`MaterialFault`], which says what the operator has to do; nothing is lost.
    pub(super) fn put_in_place(&self, in_force: &str) -> Result<(), MaterialFault> {
        let is_in_force = |found: &KeyEncryptionKey| -> bool { found.id() == in_force };
        let current = self.load();
        if matches!(&current, Ok(Some(kek)) if is_in_force(kek)) {
            return Ok(());
        }
        let (kek, next) = (self.kek.display(), self.next());
        if !matches!(self.load_next(), Ok(Some(kek)) if is_in_force(&kek)) {
            return Err(MaterialFault::new(format!(
                "{kek} does not hold the key-encryption key in force ({in_force}), nor does {}: \
                 put it back from its backup before the next start",
                next.display()
            )));
        }
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| MaterialFault {
            what: format!(
                "every secret is sealed under the key-encryption key in {next}, and {kek} still \
                 holds another one: put the content of {next} into {kek} and take {next} away. \
                 The next start needs the one or the other",
                next = next.display()
            ),
            source: Some(source),
        };
        if !matches!(current, Ok(None)) {
            self.keep_old(current.ok().flatten().as_ref())
                .map_err(|error| failed(error.into()))?;
        }
        secret_file::replace(&next, &self.kek).map_err(|error| failed(error.into()))
    }

    /// Gives the file in the place of the key in force a second name, that of a key
    /// from before, unless it has one.
    fn keep_old(&self, current: Option<&KeyEncryptionKey>) -> std::io::Result<()> {
        let id = current.map(KeyEncryptionKey::id);
        for old in self.old_names() {
            match secret_file::link(&self.kek, &old) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    let kept = KeyEncryptionKey::load(&old, self.by).ok().flatten();
                    if id.is_some() && kept.map(|kek| kek.id()) == id {
                        return Ok(());
                    }
                }
                done => return done,
            }
        }
        Ok(())
    }

    /// The names for keys from before, without end.
    fn old_names(&self) -> impl Iterator<Item = PathBuf> {
        let first = std::iter::once(self.with_ending(".old"));
        first.chain((1u32..).map(|number| self.with_ending(format_args!(".old.{number}"))))
    }

    fn with_ending(&self, ending: impl Display) -> PathBuf {
        let mut name = OsString::from(&self.kek);
        name.push(ending.to_string());
        PathBuf::from(name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn files(folder: &tempfile::TempDir) -> KekFiles {
        KekFiles {
            kek: folder.path().join("kek"),
            by: LaidOutBy::Service,
        }
    }

    fn make(path: &Path) -> String {
        KeyEncryptionKey::create(path).expect("made").id()
    }

    fn ids(files: &KekFiles) -> (Option<String>, Option<String>, Vec<String>) {
        let id = |kek: Option<KeyEncryptionKey>| kek.map(|kek| kek.id());
        (
            id(files.load().expect("loads")),
            id(files.load_next().expect("loads")),
            files.load_old().iter().map(|(_, kek)| kek.id()).collect(),
        )
    }

    #[test]
    fn the_next_key_takes_its_place_and_the_old_one_is_kept_whatever_was_done_before() {
        for is_linked_already in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let files = files(&folder);
            let old = make(files.kek());
            let next = make(&files.next());
            if is_linked_already {
                let name = files.with_ending(".old");
                fs::hard_link(files.kek(), name).expect("linked");
            }
            files.put_in_place(&next).expect("put");
            let expected = (Some(next.clone()), None, vec![old]);
            assert_eq!(ids(&files), expected);
            files.put_in_place(&next).expect("is there");
            assert_eq!(ids(&files), expected);
        }
    }

    #[test]
    fn no_key_from_before_is_ever_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(&folder);
        let mut made = vec![make(files.kek())];
        for _ in 0..3 {
            let next = make(&files.next());
            files.put_in_place(&next).expect("put");
            made.push(next);
        }
        let (current, next, old) = ids(&files);
        assert_eq!((current, next), (made.pop(), None));
        made.reverse();
        assert_eq!(old, made);
    }

    #[test]
    fn a_missing_key_is_replaced_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(&folder);
        let next = make(&files.next());
        files.put_in_place(&next).expect("put");
        assert_eq!(ids(&files), (Some(next), None, vec![]));
    }

    #[test]
    fn what_cannot_be_put_in_place_is_said_and_nothing_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(&folder);
        let (current, next) = (make(files.kek()), make(&files.next()));
        let refused = files.put_in_place("another").expect_err("it is nowhere");
        assert!(refused.what.contains("put it back"), "{}", refused.what);
        assert_eq!(ids(&files), (Some(current), Some(next), vec![]));
    }
}
