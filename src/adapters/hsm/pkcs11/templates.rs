//! The attributes of our objects in the token (PKCS#11 v3.1 §4), and reading them.

use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::KeyType as TokenKeyType;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::fault::CallFault;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyId;
use crate::domain::scope::Scope;
use crate::ports::hsm::HsmFault;

/// The curve of Ed25519 keys (RFC 8410 §3): the OID 1.3.101.112 in DER.
const ED25519_OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];

/// The public exponent 65537.
const PUBLIC_EXPONENT: [u8; 3] = [0x01, 0x00, 0x01];

const RSA_BITS: u64 = 2048;
const AES_BYTES: u64 = 32;

/// Whether an object outlives its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// It is stored in the token.
    Token,
    /// It goes with its session.
    Session,
}

/// What an object is called, and whom it belongs to: people see it in their tools,
/// and a key that was moved to another scope does not bear that scope's name.
pub(super) fn label(scope: &Scope) -> String {
    format!(
        "kms {}/{}/{}",
        scope.tenant_id, scope.environment, scope.plane
    )
}

/// The class of the object that holds the secret.
pub(super) fn secret_class(key_type: KeyType) -> ObjectClass {
    match key_type {
        KeyType::Rsa2048 | KeyType::Ed25519 => ObjectClass::PRIVATE_KEY,
        KeyType::Aes256 => ObjectClass::SECRET_KEY,
    }
}

fn token_key_type(key_type: KeyType) -> TokenKeyType {
    match key_type {
        KeyType::Rsa2048 => TokenKeyType::RSA,
        KeyType::Ed25519 => TokenKeyType::EC_EDWARDS,
        KeyType::Aes256 => TokenKeyType::AES,
    }
}

/// What finds the secret of a key.
pub(super) fn find_secret(key_id: KeyId, key_type: KeyType) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Class(secret_class(key_type)),
        Attribute::KeyType(token_key_type(key_type)),
        Attribute::Id(key_id.as_bytes().to_vec()),
    ]
}

/// What finds every object of a key.
pub(super) fn find_all(key_id: KeyId) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Id(key_id.as_bytes().to_vec()),
    ]
}

/// Makes the objects of a new key; the handle of the secret, and of the public
/// half where there is one.
///
/// # Errors
/// As the token's.
pub(super) fn make(
    session: &Session,
    key_type: KeyType,
    key_id: KeyId,
    label: &str,
    lifetime: Lifetime,
) -> Result<(ObjectHandle, Option<ObjectHandle>), CallFault> {
    let named = |mut template: Vec<Attribute>| {
        template.extend([
            Attribute::Token(lifetime == Lifetime::Token),
            Attribute::Id(key_id.as_bytes().to_vec()),
            Attribute::Label(label.as_bytes().to_vec()),
        ]);
        template
    };
    match key_type {
        KeyType::Rsa2048 => {
            let public = named(vec![
                Attribute::ModulusBits(RSA_BITS.into()),
                Attribute::PublicExponent(PUBLIC_EXPONENT.to_vec()),
                Attribute::Verify(true),
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
            ]);
            let private = named(private_template());
            let mechanism = Mechanism::RsaPkcsKeyPairGen;
            let (public, private) = session.generate_key_pair(&mechanism, &public, &private)?;
            Ok((private, Some(public)))
        }
        KeyType::Ed25519 => {
            let public = named(vec![
                Attribute::EcParams(ED25519_OID.to_vec()),
                Attribute::Verify(true),
                Attribute::Encrypt(false),
                Attribute::Wrap(false),
            ]);
            let private = named(private_template());
            let mechanism = Mechanism::EccEdwardsKeyPairGen;
            let (public, private) = session.generate_key_pair(&mechanism, &public, &private)?;
            Ok((private, Some(public)))
        }
        KeyType::Aes256 => {
            let mut secret = vec![
                Attribute::ValueLen(AES_BYTES.into()),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::Sign(false),
                Attribute::Verify(false),
                Attribute::Wrap(false),
                Attribute::Unwrap(false),
            ];
            secret.extend(kept_inside());
            let handle = session.generate_key(&Mechanism::AesKeyGen, &named(secret))?;
            Ok((handle, None))
        }
    }
}

fn private_template() -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
    ];
    template.extend(kept_inside());
    template
}

/// A secret shows itself only to who is logged in, never in the clear and never
/// outside the token.
fn kept_inside() -> [Attribute; 4] {
    [
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Derive(false),
    ]
}

/// Whether the token says of a secret what was asked of it, and that it never was
/// otherwise (PKCS#11 v3.1 §4.9).
///
/// # Errors
/// [`HsmFault::ProofFailed`] when it does not; as the token's.
pub(super) fn require_kept_inside(
    session: &Session,
    secret: ObjectHandle,
) -> Result<(), CallFault> {
    const WANTED: [(AttributeType, bool); 6] = [
        (AttributeType::Private, true),
        (AttributeType::Sensitive, true),
        (AttributeType::AlwaysSensitive, true),
        (AttributeType::Extractable, false),
        (AttributeType::NeverExtractable, true),
        (AttributeType::Local, true),
    ];
    let types = WANTED.map(|(kind, _)| kind);
    let told = session.get_attributes(secret, &types)?;
    let is_as_wanted = |(kind, wanted): (AttributeType, bool)| {
        told.iter()
            .any(|attribute| attribute.attribute_type() == kind && flag(attribute) == Some(wanted))
    };
    match WANTED.into_iter().all(is_as_wanted) {
        true => Ok(()),
        false => Err(HsmFault::ProofFailed.into()),
    }
}

fn flag(attribute: &Attribute) -> Option<bool> {
    match attribute {
        Attribute::Private(is)
        | Attribute::Sensitive(is)
        | Attribute::AlwaysSensitive(is)
        | Attribute::Extractable(is)
        | Attribute::NeverExtractable(is)
        | Attribute::Local(is) => Some(*is),
        _ => None,
    }
}

/// The label of an object.
///
/// # Errors
/// As the token's.
pub(super) fn read_label(session: &Session, object: ObjectHandle) -> Result<Vec<u8>, CallFault> {
    let told = session.get_attributes(object, &[AttributeType::Label])?;
    Ok(told
        .into_iter()
        .find_map(|attribute| match attribute {
            Attribute::Label(label) => Some(label),
            _ => None,
        })
        .unwrap_or_default())
}

/// The ids of our secrets in the token: whatever is labelled as ours and has an id
/// of the right length.
///
/// # Errors
/// As the token's.
pub(super) fn read_ids(session: &Session) -> Result<Vec<KeyId>, CallFault> {
    let mut ids = Vec::new();
    for class in [ObjectClass::PRIVATE_KEY, ObjectClass::SECRET_KEY] {
        let template = [Attribute::Token(true), Attribute::Class(class)];
        for object in session.find_objects(&template)? {
            let told = session.get_attributes(object, &[AttributeType::Id])?;
            ids.extend(told.into_iter().find_map(|attribute| match attribute {
                Attribute::Id(id) => <[u8; 16]>::try_from(id).ok().map(KeyId::from_bytes),
                _ => None,
            }));
        }
    }
    Ok(ids)
}

/// The DER of the `SubjectPublicKeyInfo` of a public key object (RFC 3279 §2.3.1,
/// RFC 8410 §4).
///
/// # Errors
/// [`HsmFault::MalformedKey`] for a key of another form; as the token's.
pub(super) fn read_public_key(
    session: &Session,
    key_type: KeyType,
    public: ObjectHandle,
) -> Result<Vec<u8>, CallFault> {
    let wanted = [
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::EcPoint,
    ];
    let wanted = match key_type {
        KeyType::Rsa2048 => &wanted[..2],
        KeyType::Ed25519 => &wanted[2..],
        KeyType::Aes256 => return Err(HsmFault::MalformedKey.into()),
    };
    let (mut modulus, mut exponent, mut point) = (None, None, None);
    for attribute in session.get_attributes(public, wanted)? {
        match attribute {
            Attribute::Modulus(bytes) => modulus = Some(bytes),
            Attribute::PublicExponent(bytes) => exponent = Some(bytes),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            _ => {}
        }
    }
    match (modulus, exponent, point) {
        (Some(modulus), Some(exponent), None) => spki_of_rsa(&modulus, &exponent),
        (None, None, Some(point)) => spki_of_ed25519(&point),
        _ => None,
    }
    .ok_or_else(|| HsmFault::MalformedKey.into())
}

fn spki_of_rsa(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    // SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING { SEQUENCE {
    // INTEGER modulus, INTEGER 65537 } } }, whose lengths are all known.
    const HEAD: [u8; 33] = [
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01,
        0x01, 0x01, 0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82,
        0x01, 0x01, 0x00,
    ];
    const TAIL: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
    let modulus = without_zeros(modulus);
    let is_ours =
        modulus.len() == 256 && modulus[0] >= 0x80 && without_zeros(exponent) == PUBLIC_EXPONENT;
    is_ours.then(|| [&HEAD[..], modulus, &TAIL].concat())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn spki_of_ed25519(point: &[u8]) -> Option<Vec<u8>> {
    const HEAD: [u8; 12] = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    // In DER as PKCS#11 2.40 has it for every curve, or bare as 3.0 has it for this one.
    let point = match point {
        [0x04, 0x20, point @ ..] if point.len() == 32 => point,
        point if point.len() == 32 => point,
        _ => return None,
    };
    Some([&HEAD[..], point].concat())
}

/// What the parameters of a mechanism name as the hash.
pub(super) const SHA256: MechanismType = MechanismType::SHA256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::hsm::public_key::{PublicKey, spki_pem};

    #[test]
    fn a_point_is_read_in_both_forms_and_no_other() {
        let bare = [9; 32];
        let wrapped = [&[0x04, 0x20][..], &bare].concat();
        let spki = spki_of_ed25519(&bare).expect("a point");
        assert_eq!(spki_of_ed25519(&wrapped), Some(spki));
        assert_eq!(spki_of_ed25519(&bare[1..]), None);
        assert_eq!(spki_of_ed25519(&[&[0x04, 0x21][..], &bare].concat()), None);
    }

    #[test]
    fn a_modulus_becomes_a_key_with_or_without_a_leading_zero() {
        let modulus = [0xc1; 256];
        let spki = spki_of_rsa(&modulus, &[1, 0, 1]).expect("a key");
        let with_zero = [&[0][..], &modulus].concat();
        assert_eq!(spki_of_rsa(&with_zero, &[0, 1, 0, 1]), Some(spki.clone()));
        assert!(PublicKey::parse(KeyType::Rsa2048, &spki_pem(&spki)).is_ok());
        assert_eq!(spki_of_rsa(&modulus[1..], &[1, 0, 1]), None);
        assert_eq!(spki_of_rsa(&modulus, &[3]), None);
        assert_eq!(spki_of_rsa(&[0x41; 256], &[1, 0, 1]), None);
    }
}
