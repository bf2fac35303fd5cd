//! Nonces of 96 random bits, which the service draws and no caller chooses.

use crate::ports::hsm::{HsmFault, Nonce};

/// A fresh nonce (NIST SP 800-38D §8.2.2), from the library's generator, which the
/// system seeds.
///
/// # Errors
/// [`HsmFault::Refused`] when the system gives no randomness.
pub(super) fn fresh_nonce() -> Result<Nonce, HsmFault> {
    let mut nonce = Nonce::default();
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| HsmFault::Refused)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_fresh() {
        let first = fresh_nonce().expect("random");
        assert_ne!(first, fresh_nonce().expect("random"));
        assert_ne!(first, Nonce::default());
    }
}
