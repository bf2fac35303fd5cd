//! Where each piece of work runs. Knows no key.

use crate::adapters::hsm::pace;
use crate::domain::algorithm::{AeadAlgorithm, SigningAlgorithm};

const KIB: usize = 1024;

/// Where a piece of work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the async worker that asked: at most about 100 µs.
    Here,
    /// On the threads for long computations.
    Pool,
    /// There, one piece of a batch after the other.
    PoolByPieces,
}

impl Place {
    /// Here for at most so many bytes.
    fn here_up_to(longest: usize, length: usize) -> Self {
        match length <= longest {
            true => Self::Here,
            false => Self::Pool,
        }
    }

    /// Ed25519 hashes what it signs twice with SHA-512. An RSA signature alone
    /// takes 230 µs, and opening the key for it half as long.
    pub(super) fn of_signing(algorithm: SigningAlgorithm, length: usize) -> Self {
        match algorithm {
            SigningAlgorithm::RsaPssSha256 | SigningAlgorithm::RsaPkcs1v15Sha256 => Self::Pool,
            SigningAlgorithm::Ed25519 => Self::here_up_to(16 * KIB, length),
        }
    }

    /// Checking an RSA signature takes 14 µs, and SHA-256 hashes 64 KiB in 40.
    pub(super) fn of_verifying(algorithm: SigningAlgorithm, length: usize) -> Self {
        match algorithm {
            SigningAlgorithm::RsaPssSha256 | SigningAlgorithm::RsaPkcs1v15Sha256 => {
                Self::here_up_to(64 * KIB, length)
            }
            SigningAlgorithm::Ed25519 => Self::here_up_to(16 * KIB, length),
        }
    }

    /// AES-256-GCM takes about 30 µs one way for 512 KiB, ChaCha20-Poly1305 as
    /// long for 64 KiB.
    pub(super) fn of_encrypting(algorithm: AeadAlgorithm, length: usize) -> Self {
        match algorithm {
            AeadAlgorithm::Aes256Gcm => Self::here_up_to(512 * KIB, length),
            AeadAlgorithm::ChaCha20Poly1305 => Self::here_up_to(64 * KIB, length),
        }
    }
}

/// The items of a batch in pieces, and where each of them runs.
pub(super) fn placed<I>(
    items: Vec<I>,
    cost_ns: impl Fn(&I) -> u64,
) -> impl Iterator<Item = (Place, Vec<I>)> {
    let place = match pace::is_short(&items, &cost_ns) {
        true => Place::Here,
        false => Place::PoolByPieces,
    };
    pace::pieces(items, cost_ns)
        .into_iter()
        .map(move |piece| (place, piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_is_not_short_runs_by_pieces_in_the_pool() {
        let cost_ns = |length: &usize| pace::signing_ns(SigningAlgorithm::Ed25519, *length);
        let places = |items| {
            placed(items, cost_ns)
                .map(|(place, piece)| (place, piece.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(places(vec![32; 10]), [(Place::Here, 10)]);
        let in_the_pool = [(Place::PoolByPieces, 139), (Place::PoolByPieces, 61)];
        assert_eq!(places(vec![32; 200]), in_the_pool);
        assert_eq!(places(vec![64 * KIB]), [(Place::PoolByPieces, 1)]);
    }

    #[test]
    fn what_takes_long_runs_in_the_pool() {
        use AeadAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
        use SigningAlgorithm::{Ed25519, RsaPkcs1v15Sha256, RsaPssSha256};

        assert_eq!(Place::of_signing(RsaPssSha256, 0), Place::Pool);
        assert_eq!(Place::of_signing(RsaPkcs1v15Sha256, 0), Place::Pool);
        assert_eq!(Place::of_signing(Ed25519, 16 * KIB), Place::Here);
        assert_eq!(Place::of_signing(Ed25519, 16 * KIB + 1), Place::Pool);
        assert_eq!(Place::of_verifying(RsaPssSha256, 64 * KIB), Place::Here);
        assert_eq!(Place::of_verifying(RsaPssSha256, 64 * KIB + 1), Place::Pool);
        assert_eq!(Place::of_verifying(Ed25519, 16 * KIB + 1), Place::Pool);
        assert_eq!(Place::of_encrypting(Aes256Gcm, 512 * KIB), Place::Here);
        assert_eq!(Place::of_encrypting(Aes256Gcm, 512 * KIB + 1), Place::Pool);
        assert_eq!(
            Place::of_encrypting(ChaCha20Poly1305, 64 * KIB),
            Place::Here
        );
        assert_eq!(
            Place::of_encrypting(ChaCha20Poly1305, 64 * KIB + 1),
            Place::Pool
        );
    }
}
