//! Checkpoints: what is signed of a tree (C2SP tlog-checkpoint).

use std::fmt;

use super::hash::TreeHash;
use super::note::VerifierKey;

/// The name of the ledger, in its checkpoints and in its verifier keys.
pub const ORIGIN: &str = "kms";

/// How the extension line begins by which a key names the one that takes over.
const NEXT_KEY: &str = "next key: ";

/// A tree by its size and root. Whoever keeps one can hold the ledger to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of receipts.
    pub size: u64,
    /// The root of the tree over them.
    pub root: TreeHash,
}

/// The text is not a checkpoint of this ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint of a ledger named {ORIGIN} (C2SP tlog-checkpoint)")]
pub struct MalformedCheckpoint;

impl Checkpoint {
    /// The text by which a new key takes over at this tree: the checkpoint, with the
    /// new key in an extension line. Without it any checkpoint of the old key would
    /// become a handover to whoever adds a signature.
    pub fn handover_text(&self, next: &VerifierKey) -> String {
        format!("{self}{NEXT_KEY}{next}\n")
    }

    /// The key that the text of a note names as the next one, if it names one.
    pub fn next_key(text: &str) -> Option<VerifierKey> {
        let mut extensions = text.lines().skip(3);
        extensions.find_map(|line| line.strip_prefix(NEXT_KEY)?.parse().ok())
    }

    /// Reads the text of a note: the origin, the size, the root, and whatever
    /// extension lines follow, see [`Checkpoint::next_key`].
    ///
    /// # Errors
    /// [`MalformedCheckpoint`].
    pub fn from_text(text: &str) -> Result<Self, MalformedCheckpoint> {
        let body = text.strip_suffix('\n').ok_or(MalformedCheckpoint)?;
        let mut lines = body.split('\n');
        let mut line = || lines.next().ok_or(MalformedCheckpoint);
        let (origin, size, root) = (line()?, line()?, line()?);
        let number: u64 = size.parse().map_err(|_| MalformedCheckpoint)?;
        let is_canonical = number.to_string() == size;
        if origin != ORIGIN || !is_canonical || lines.any(str::is_empty) {
            return Err(MalformedCheckpoint);
        }
        Ok(Self {
            size: number,
            root: TreeHash::from_base64(root).ok_or(MalformedCheckpoint)?,
        })
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{ORIGIN}\n{}\n{}", self.size, self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            size: 923_748,
            root: TreeHash::of_leaf(b"root"),
        }
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let text = checkpoint().to_string();
        assert_eq!(Checkpoint::from_text(&text), Ok(checkpoint()));
        let extended = format!("{text}an extension\nanother\n");
        assert_eq!(Checkpoint::from_text(&extended), Ok(checkpoint()));
    }

    #[test]
    fn a_handover_is_a_checkpoint_that_names_the_next_key() {
        let next = VerifierKey::new(ORIGIN, [9; 32]);
        let text = checkpoint().handover_text(&next);
        assert_eq!(Checkpoint::from_text(&text), Ok(checkpoint()));
        assert_eq!(Checkpoint::next_key(&text), Some(next.clone()));
        assert_eq!(Checkpoint::next_key(&checkpoint().to_string()), None);
        // Only an extension counts, and only a key.
        let elsewhere = format!("{NEXT_KEY}{next}\n{}", checkpoint());
        assert_eq!(Checkpoint::next_key(&elsewhere), None);
        let no_key = format!("{}{NEXT_KEY}mine\n", checkpoint());
        assert_eq!(Checkpoint::next_key(&no_key), None);
        let theirs = tlog_tiles::Checkpoint::from_bytes(text.as_bytes())
            .unwrap_or_else(|_| panic!("malformed to others"));
        assert_eq!(theirs.extension(), format!("{NEXT_KEY}{next}\n"));
    }

    #[test]
    fn another_implementation_reads_it_alike() {
        let theirs = tlog_tiles::Checkpoint::from_bytes(checkpoint().to_string().as_bytes())
            .unwrap_or_else(|_| panic!("malformed to others"));
        assert_eq!(theirs.origin(), ORIGIN);
        assert_eq!(theirs.size(), checkpoint().size);
        assert_eq!(&theirs.hash().0, checkpoint().root.as_bytes());
        assert_eq!(theirs.extension(), "");
    }

    #[test]
    fn whatever_is_not_exactly_a_checkpoint_is_refused() {
        let text = checkpoint().to_string();
        let root = checkpoint().root.to_string();
        for other in [
            String::new(),
            text.trim_end().to_owned(),
            text.replace("kms", "other"),
            text.replace("923748", "0923748"),
            text.replace("923748", "+923748"),
            text.replace("923748", "-1"),
            text.replace("923748", "18446744073709551616"),
            text.replace(&root, ""),
            text.replace(&root, &root[1..]),
            text.replace(&root, root.trim_end_matches('=')),
            format!("{text}\n"),
            format!("{text}extension\n\n"),
            format!("\n{text}"),
            text.replace('\n', "\r\n"),
        ] {
            assert_eq!(
                Checkpoint::from_text(&other),
                Err(MalformedCheckpoint),
                "{other:?}"
            );
        }
    }
}
