//! HKDF-SHA-256 (RFC 5869) with an empty salt: one secret in, one secret for one
//! purpose out.
//!
//! The salt may be empty because every input here is uniformly random already
//! (RFC 5869 §3.1); what keeps two outputs apart is the info.

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::ports::hsm::HsmFault;

/// Derives `N` bytes of `secret` for the purpose that `info` names.
///
/// # Errors
/// [`HsmFault::Refused`] when the library does not derive.
pub(super) fn derive<const N: usize>(
    secret: &[u8],
    info: &[u8],
) -> Result<Zeroizing<[u8; N]>, HsmFault> {
    // The library erases its own copy of the secret and its HMAC states. It would
    // not erase the output on the way into an `UnboundKey`, so that is done here.
    let mut output = Zeroizing::new([0u8; N]);
    hkdf::Salt::none(hkdf::HKDF_SHA256)
        .extract(secret)
        .expand(&[info], Length(N))
        .and_then(|okm| okm.fill(output.as_mut_slice()))
        .map_err(|_| HsmFault::Refused)?;
    Ok(output)
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivation_is_hkdf_sha_256_with_an_empty_salt() {
        // RFC 5869, appendix A.3, cut to 32 of its 42 bytes; the info is empty.
        let output = derive::<32>(&[0x0b; 22], b"").expect("derives");
        let expected = [
            0x8d, 0xa4, 0xe7, 0x75, 0xa5, 0x63, 0xc1, 0x8f, 0x71, 0x5f, 0x80, 0x2a, 0x06, 0x3c,
            0x5a, 0x31, 0xb8, 0xa1, 0x1f, 0x5c, 0x5e, 0xe1, 0x87, 0x9e, 0xc3, 0x45, 0x4e, 0x5f,
            0x3c, 0x73, 0x8d, 0x2d,
        ];
        assert_eq!(*output, expected);
    }

    #[test]
    fn another_info_derives_another_secret() {
        let secret = [7; 32];
        let one = derive::<32>(&secret, b"one").expect("derives");
        let other = derive::<32>(&secret, b"other").expect("derives");
        assert_ne!(*one, *other);
    }
}
