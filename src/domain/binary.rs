//! Binary fields on the wire.

use base64_simd::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::secret::SecretBytes;
use super::wire::{Unparsable, WireField};

/// Bytes that came as standard base64 with padding (RFC 4648 §4), decoded
/// strictly: no white space, no URL alphabet, no stray bits in the last group.
///
/// Without `Debug`, since it may hold a caller's plaintext.
#[derive(Clone)]
pub struct Base64Bytes(Bytes);

impl Base64Bytes {
    /// Exactly the texts that are read, as a regular expression (ECMA-262).
    pub const PATTERN: &'static str =
        "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

    /// Decodes a text.
    ///
    /// # Errors
    /// [`Unparsable`] when the text is anything but strict standard base64.
    pub fn decode(text: &str) -> Result<Self, Unparsable> {
        STANDARD
            .decode_to_vec(text)
            .map(|bytes| Self(Bytes::from(bytes)))
            .map_err(|_| Unparsable(Self::EXPECTED))
    }

    /// The bytes, shared and not copied.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl WireField for Base64Bytes {
    const EXPECTED: &'static str = "standard base64 with padding (RFC 4648 section 4)";
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::decode(&text).map_err(serde::de::Error::custom)
    }
}

/// Decodes the same strictly into a secret.
///
/// # Errors
/// [`Unparsable`], as for [`Base64Bytes::decode`].
pub fn decode_secret(text: &str) -> Result<SecretBytes, Unparsable> {
    STANDARD
        .decode_to_vec(text)
        .map(SecretBytes::new)
        .map_err(|_| Unparsable(Base64Bytes::EXPECTED))
}

/// Bytes that are written as standard base64 with padding, in what is erased.
pub struct Base64Text<'a>(pub &'a [u8]);

impl Base64Text<'_> {
    /// How long the text is, in bytes.
    pub const fn len(&self) -> usize {
        self.0.len().div_ceil(3) * 4
    }

    /// Whether there is no text.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Base64Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(STANDARD.encode_to_string(self.0));
        serializer.serialize_str(&text)
    }
}

/// Writes bytes as standard base64 with padding.
pub fn encode_base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode_to_string(bytes)
}

/// Appends the same to a buffer.
pub fn append_base64(bytes: impl AsRef<[u8]>, buffer: &mut Vec<u8>) {
    STANDARD.encode_append(bytes, buffer);
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose as independent;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_strict_standard_base64_is_read() {
        let good = Base64Bytes::decode("SGVsbG8=").map(Base64Bytes::into_bytes);
        assert_eq!(good.as_deref(), Ok(&b"Hello"[..]));
        let empty = Base64Bytes::decode("").map(Base64Bytes::into_bytes);
        assert_eq!(empty.as_deref(), Ok(&b""[..]));
        for bad in [
            "SGVsbG8",
            "SGVsbG8 =",
            " SGVsbG8=",
            "SGVsbG8=\n",
            "-_-_",
            "SGVsbG9=",
            "SGVsbG8==",
            "SGVsbG8=SGVs",
            "SGVsbA",
            "SGVsbB==",
            "=",
            "====",
            "A===",
            "ä",
            "SGV\0",
        ] {
            assert!(Base64Bytes::decode(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_read_as_an_independent_implementation_reads_it(
            text in "[A-Za-z0-9+/]{0,70}={0,3}|[A-Za-z0-9+/=]{0,12}|\\PC{0,40}",
        ) {
            let ours = Base64Bytes::decode(&text).map(Base64Bytes::into_bytes);
            let theirs = independent::STANDARD.decode(&text);
            prop_assert_eq!(ours.ok().map(Vec::from), theirs.ok());
        }

        #[test]
        fn bytes_are_written_as_an_independent_implementation_writes_them(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let text = encode_base64(&bytes);
            prop_assert_eq!(&text, &independent::STANDARD.encode(&bytes));
            let mut buffer = b"before".to_vec();
            append_base64(&bytes, &mut buffer);
            prop_assert_eq!(buffer, ["before", &text].concat().into_bytes());
            let read = Base64Bytes::decode(&text).map(Base64Bytes::into_bytes);
            prop_assert_eq!(read.ok().map(Vec::from), Some(bytes));
        }
    }
}
