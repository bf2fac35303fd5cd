//! Who is at the other end of a connection, by its validated certificate.

use super::ids::{ModuleId, TenantId};
use super::scope::{Environment, Plane, Scope};
use super::time::Timestamp;

/// A caller's name in the SPIFFE form:
/// `spiffe://<trust domain>/tenant/<tenant_id>/env/<environment>/plane/<plane>/module/<module_id>`
/// (SPIFFE-ID §2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    uri: String,
    scope: Scope,
    module: ModuleId,
}

/// The longest name that is read, in bytes (SPIFFE-ID §2.3).
const LONGEST_NAME: usize = 2_048;

/// The longest trust domain, in bytes (SPIFFE-ID §2.1).
const LONGEST_TRUST_DOMAIN: usize = 255;

impl SpiffeId {
    /// Reads a name; `None` for anything that is not exactly of the form.
    pub fn parse(uri: &str) -> Option<Self> {
        if uri.len() > LONGEST_NAME {
            return None;
        }
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let trust_domain = parts.next()?;
        let is_domain = !trust_domain.is_empty()
            && trust_domain.len() <= LONGEST_TRUST_DOMAIN
            && trust_domain.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte)
            });
        if !is_domain {
            return None;
        }
        let mut value_of = |name: &str| (parts.next()? == name).then(|| parts.next())?;
        let tenant_id: TenantId = value_of("tenant")?.parse().ok()?;
        let environment: Environment = value_of("env")?.parse().ok()?;
        let plane: Plane = value_of("plane")?.parse().ok()?;
        let module: ModuleId = value_of("module")?.parse().ok()?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            uri: uri.to_owned(),
            scope: Scope {
                tenant_id,
                environment,
                plane,
            },
            module,
        })
    }

    /// The name as it stands in the certificate.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// Where its owner lives.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The module it names.
    pub fn module(&self) -> &ModuleId {
        &self.module
    }
}

/// A public key by its numbers, in whichever form it came (SPKI or JWK), so that
/// two of them can be compared. Leading zeros of RSA's numbers are cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PublicKeyNumbers {
    /// RSA: modulus and public exponent, big-endian.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: Vec<u8>,
    },
    /// A point of a NIST curve, uncompressed (SEC 1 §2.3.3).
    Ec {
        /// The point, beginning with 4.
        point: Vec<u8>,
    },
    /// Ed25519 (RFC 8032 §5.1.5).
    Ed25519 {
        /// The 32 bytes.
        key: Vec<u8>,
    },
}

impl PublicKeyNumbers {
    /// An RSA key of these big-endian numbers.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        Self::Rsa {
            modulus: without_leading_zeros(modulus),
            exponent: without_leading_zeros(exponent),
        }
    }
}

fn without_leading_zeros(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number[zeros..].to_vec()
}

/// What a validated client certificate says of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its name.
    pub spiffe_id: SpiffeId,
    /// Its public key; `None` for a kind that no approver can have.
    pub public_key: Option<PublicKeyNumbers>,
    /// When the certificate ends. A connection can outlive it, an identity not.
    pub not_after: Timestamp,
    /// On whose word it is believed.
    pub vouched_by: VouchedBy,
}

/// On whose word a certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VouchedBy {
    /// An authority of the configuration, or an anchor of the tenant `GLOBAL`.
    Platform,
    /// An anchor that the same tenant took in.
    Tenant,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "spiffe://zeroui.example/tenant/acme/env/prod/plane/tenant/module/M27";

    #[test]
    fn a_name_of_the_form_says_scope_and_module() {
        let id = SpiffeId::parse(NAME).expect("of the form");
        assert_eq!(id.scope().tenant_id.as_str(), "acme");
        assert_eq!(id.scope().environment, Environment::Prod);
        assert_eq!(id.scope().plane, Plane::Tenant);
        assert_eq!(id.module().as_str(), "M27");
        assert_eq!(id.as_str(), NAME);
    }

    #[test]
    fn a_second_name_of_a_module_is_read_as_its_first() {
        let id = SpiffeId::parse(&NAME.replace("M27", "PM-7")).expect("of the form");
        assert_eq!(id.module().as_str(), "M27");
    }

    #[test]
    fn whatever_is_not_exactly_of_the_form_is_no_name() {
        for other in [
            NAME.replace("spiffe:", "https:"),
            NAME.replace("spiffe:", "SPIFFE:"),
            NAME.replace("zeroui.example", ""),
            NAME.replace("zeroui.example", "Zeroui.Example"),
            NAME.replace("zeroui.example", "zeroui.example:443"),
            NAME.replace("zeroui.example", "user@zeroui.example"),
            NAME.replace("/tenant/acme", "/tenant/"),
            NAME.replace("/tenant/acme", "/tenant/a%63me"),
            NAME.replace("/tenant/acme", "/tenant/acme/../other"),
            NAME.replace("/env/prod", "/env/PROD"),
            NAME.replace("/env/prod", "/environment/prod"),
            NAME.replace("/plane/tenant", ""),
            NAME.replace("/plane/tenant", "/plane/moon"),
            NAME.replace("/module/M27", ""),
            format!("{NAME}/"),
            format!("{NAME}?x=1"),
            format!("{NAME}#x"),
            format!("{NAME}/module/M21"),
            format!(" {NAME}"),
            format!("spiffe://{}{}", "a".repeat(256), &NAME[23..]),
        ] {
            assert_eq!(SpiffeId::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn leading_zeros_make_no_other_key() {
        let one = PublicKeyNumbers::rsa(&[0, 0, 7, 1], &[1, 0, 1]);
        assert_eq!(one, PublicKeyNumbers::rsa(&[7, 1], &[0, 1, 0, 1]));
        assert_ne!(one, PublicKeyNumbers::rsa(&[7, 2], &[1, 0, 1]));
    }
}
