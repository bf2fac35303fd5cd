//! `auth.*`: the tokens of the identity service (M21).
//!
//! It knows where keys and names come from, and not how a token is checked.

use super::reader::Reader;
use super::secret::mask_address;
use super::value::{Outcome, Raw, flag, quoted, text};

/// How bearer tokens are judged.
pub struct Auth {
    /// Whether every request must carry a token.
    pub require_jwt: bool,
    /// The key set that signs tokens: a file or an address.
    pub jwks: Option<String>,
    /// The issuer a token must name.
    pub issuer: Option<String>,
    /// The audience a token must name.
    pub audience: Option<String>,
}

impl Auth {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            require_jwt: reader.take("auth.require_jwt", flag),
            jwks: reader.take_optional("auth.jwks", key_set),
            issuer: reader.take_optional("auth.issuer", text),
            audience: reader.take_optional("auth.audience", text),
        }
    }
}

/// A file or an address; an address can carry a password, which isn't shown.
pub(super) fn key_set(raw: &Raw) -> Outcome<String> {
    let mut parsed = text(raw)?;
    parsed.shown = quoted(&mask_address(&parsed.value));
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_an_address_is_kept_but_not_shown() {
        let raw = Raw::Variable("https://kms:hunter2@iam/jwks.json".to_owned());
        assert!(key_set(&raw).is_ok_and(|set| {
            set.value.contains("hunter2") && set.shown == "\"https://kms:********@iam/jwks.json\""
        }));
    }
}
