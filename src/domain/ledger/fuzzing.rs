//! Notes, checkpoints, keys and paths of tiles that others wrote.

use super::{Checkpoint, SignedNote, TilePath, VerifierKey};
use crate::domain::receipt::ReadReceipt;

/// A signed note, and the checkpoint in it: what reads is written as it was.
pub(crate) fn note(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(note) = text.parse::<SignedNote>() {
        assert_eq!(note.to_string(), text);
        if let Ok(checkpoint) = Checkpoint::from_text(&note.text) {
            assert!(note.text.starts_with(&checkpoint.to_string()));
        }
        let _ = Checkpoint::next_key(&note.text);
    }
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
}

/// The path of a tile.
pub(crate) fn tile(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(path) = text.parse::<TilePath>()
    {
        assert_eq!(path.to_string(), text);
    }
}

/// A leaf: what reads is what this service would have written, byte for byte.
pub(crate) fn receipt(bytes: &[u8]) {
    if let Some(read) = ReadReceipt::parse(bytes) {
        assert_eq!(read.receipt.leaf, bytes);
        let leaf: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
        let unsigned: serde_json::Value = serde_json::from_slice(&read.unsigned).expect("JSON");
        let mut expected = leaf;
        let members = expected.as_object_mut().expect("an object");
        assert!(members.remove("signature").is_some());
        assert_eq!(unsigned, expected);
    }
}
