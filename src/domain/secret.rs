//! The one type that holds secrets.

use zeroize::{Zeroize, Zeroizing};

/// Secret bytes: key material, plaintext on its way out, tokens, PINs.
///
/// Zeroed on drop, and without `Debug`, `Clone`, `PartialEq` and `Serialize`, so
/// that no log line, copy, early-exit comparison or answer can be made of one by
/// accident. [`SecretBytes::expose`] is the only way in.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes ownership of the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Copies the bytes and erases where they came from.
    pub fn take_from(source: &mut [u8]) -> Self {
        let secret = Self::new(source.to_vec());
        source.zeroize();
        secret
    }

    /// The secret itself. Every use is one `grep expose` away.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes, which is no secret.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretBytes {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(
        SecretBytes: Clone, Copy, std::fmt::Debug, std::fmt::Display, PartialEq, serde::Serialize
    );

    #[test]
    fn taking_a_secret_erases_its_source() {
        let mut source = *b"secret";
        let secret = SecretBytes::take_from(&mut source);
        assert_eq!(source, [0; 6]);
        assert_eq!(secret.expose(), b"secret");
    }
}
