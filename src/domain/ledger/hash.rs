//! The hashes of the tree (RFC 9162 §2.1.1).

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a leaf's hash begins with, so that no inner node can pass for a leaf.
const LEAF_PREFIX: u8 = 0;

/// What an inner node's hash begins with.
const NODE_PREFIX: u8 = 1;

/// A SHA-256 hash of a leaf or of an inner node.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeHash([u8; Self::LEN]);

impl TreeHash {
    /// The length, in bytes.
    pub const LEN: usize = 32;

    /// The hash of a leaf: SHA-256 over 0 and the leaf.
    pub fn of_leaf(leaf: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[LEAF_PREFIX]);
        context.update(leaf);
        Self::take(context.finish().as_ref())
    }

    /// The hash of an inner node: SHA-256 over 1 and its two children.
    pub fn of_children(left: Self, right: Self) -> Self {
        let mut node = [NODE_PREFIX; 1 + 2 * Self::LEN];
        node[1..=Self::LEN].copy_from_slice(&left.0);
        node[1 + Self::LEN..].copy_from_slice(&right.0);
        Self::take(digest(&SHA256, &node).as_ref())
    }

    /// The root of a tree without leaves: SHA-256 over nothing.
    pub fn of_empty_tree() -> Self {
        Self::take(digest(&SHA256, &[]).as_ref())
    }

    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The hash behind standard base64 of 32 bytes; `None` for anything else.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Hashes that stand side by side, as a tile holds them; `None` where the
    /// length is no multiple of a hash's.
    pub fn split(bytes: &[u8]) -> Option<Vec<Self>> {
        let (hashes, rest) = bytes.as_chunks::<{ Self::LEN }>();
        rest.is_empty()
            .then(|| hashes.iter().copied().map(Self).collect())
    }

    /// The same side by side again.
    pub fn join(hashes: impl IntoIterator<Item = Self>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for hash in hashes {
            bytes.extend_from_slice(&hash.0);
        }
        bytes
    }

    fn take(digest: &[u8]) -> Self {
        let mut bytes = [0; Self::LEN];
        // SHA-256 gives exactly this many.
        bytes.copy_from_slice(digest);
        Self(bytes)
    }
}

/// Standard base64 with padding, as checkpoints and proofs write it.
impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
