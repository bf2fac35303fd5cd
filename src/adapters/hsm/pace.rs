//! How long work with a key takes in software, and how a batch of it is cut into
//! pieces between which others get their turn. Knows no key.

use crate::domain::algorithm::{AeadAlgorithm, SigningAlgorithm};

/// What an async worker may be kept busy with, in nanoseconds.
const SHORT_NS: u64 = 100_000;

/// What a piece of a batch may take, in nanoseconds. Whoever comes in between waits
/// for it, and about four RSA signatures are no longer.
const PIECE_NS: u64 = 1_000_000;

const BYTES_IN_KIB: u64 = 1024;

/// Making a signature, in nanoseconds. RSA takes 230 µs, and twice that on processors
/// without AVX-512 IFMA.
pub(super) fn signing_ns(algorithm: SigningAlgorithm, length: usize) -> u64 {
    match algorithm {
        SigningAlgorithm::RsaPssSha256 | SigningAlgorithm::RsaPkcs1v15Sha256 => {
            300_000 + per_kib(700, length)
        }
        // Hashes what it signs twice with SHA-512.
        SigningAlgorithm::Ed25519 => 7_000 + per_kib(5_000, length),
    }
}

/// Checking a signature, in nanoseconds.
pub(super) fn verifying_ns(algorithm: SigningAlgorithm, length: usize) -> u64 {
    match algorithm {
        SigningAlgorithm::RsaPssSha256 | SigningAlgorithm::RsaPkcs1v15Sha256 => {
            15_000 + per_kib(700, length)
        }
        SigningAlgorithm::Ed25519 => 27_000 + per_kib(2_500, length),
    }
}

/// Encrypting or decrypting, in nanoseconds.
pub(super) fn sealing_ns(algorithm: AeadAlgorithm, length: usize) -> u64 {
    match algorithm {
        AeadAlgorithm::Aes256Gcm => 1_000 + per_kib(100, length),
        AeadAlgorithm::ChaCha20Poly1305 => 1_000 + per_kib(500, length),
    }
}

fn per_kib(ns: u64, length: usize) -> u64 {
    ns.saturating_mul(length as u64) / BYTES_IN_KIB
}

/// Whether all of it can be done where it stands.
pub(super) fn is_short<I>(items: &[I], cost_ns: impl Fn(&I) -> u64) -> bool {
    items.iter().map(cost_ns).sum::<u64>() <= SHORT_NS
}

/// The items in pieces of about a millisecond, of one item at least.
pub(super) fn pieces<I>(items: Vec<I>, cost_ns: impl Fn(&I) -> u64) -> Vec<Vec<I>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut piece_ns = 0;
    for item in items {
        let item_ns = cost_ns(&item);
        if piece_ns + item_ns > PIECE_NS && !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece));
            piece_ns = 0;
        }
        piece_ns += item_ns;
        piece.push(item);
    }
    if !piece.is_empty() {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_into_pieces_of_a_millisecond_in_order() {
        let cost = |algorithm| move |length: &usize| signing_ns(algorithm, *length);
        let sizes = |pieces: Vec<Vec<usize>>| pieces.iter().map(Vec::len).collect::<Vec<_>>();
        let rsa = pieces(vec![32; 10], cost(SigningAlgorithm::RsaPssSha256));
        assert_eq!(sizes(rsa), [3, 3, 3, 1]);
        let ed25519 = pieces(vec![32; 300], cost(SigningAlgorithm::Ed25519));
        assert_eq!(sizes(ed25519), [139, 139, 22]);
        // One that takes longer by itself is a piece of its own.
        let mixed = pieces(vec![1, 1 << 20, 2, 3], cost(SigningAlgorithm::Ed25519));
        assert_eq!(mixed, [vec![1], vec![1 << 20], vec![2, 3]]);
        assert!(pieces(Vec::<usize>::new(), |_| 1).is_empty());
    }

    #[test]
    fn only_what_is_short_as_a_whole_stays_where_it_is() {
        let short = |number: usize| is_short(&vec![(); number], |()| 10_000);
        assert!(short(10));
        assert!(!short(11));
    }
}
