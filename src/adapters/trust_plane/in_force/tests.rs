//! Who vouches for whom, and for how long.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use x509_parser::parse_x509_certificate;

use super::*;
use crate::domain::scope::Plane;
use crate::domain::time::Period;
use crate::domain::trust_anchor::{AnchorType, CertificateFacts};

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().expect("valid")
}

fn scope(tenant: &str) -> Scope {
    Scope {
        tenant_id: tenant.parse().expect("valid"),
        environment: Environment::Prod,
        plane: Plane::Tenant,
    }
}

fn anchor(name: &str, scope: Scope) -> TrustAnchor {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    TrustAnchor {
        trust_anchor_id: TrustAnchorId::generate(),
        scope,
        anchor_type: AnchorType::Root,
        certificate: CertificateFacts {
            der: certificate.der().to_vec(),
            fingerprint: name.to_owned(),
            subject: name.to_owned(),
            not_before: now(),
            not_after: now().plus(Period::days(1)),
        },
        added_at: now(),
        added_by: "M32".parse().expect("valid"),
    }
}

/// The subject as the other side of a handshake reads it.
fn subject(anchor: &TrustAnchor) -> Vec<u8> {
    let (_, parsed) = parse_x509_certificate(&anchor.certificate.der).expect("a certificate");
    parsed.subject().as_raw().to_vec()
}

fn ids(in_force: &InForce, subject: &[u8], scope: &Scope) -> Vec<TrustAnchorId> {
    let vouchers = in_force.vouchers(subject, scope, now());
    vouchers.iter().map(|one| one.trust_anchor_id).collect()
}

#[test]
fn an_anchor_in_force_is_found_by_its_subject() {
    let in_force = InForce::default();
    // From the shortest form of a length to the longer ones.
    for name in ["a".to_owned(), "b".repeat(150), "c".repeat(300)] {
        let anchor = anchor(&name, scope("t"));
        assert!(ids(&in_force, &subject(&anchor), &scope("t")).is_empty());
        in_force.admit(&anchor);
        in_force.admit(&anchor);
        let found = in_force.vouchers(&subject(&anchor), &scope("t"), now());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].trust_anchor_id, anchor.trust_anchor_id);
        assert_eq!(*found[0].der, *anchor.certificate.der);
        assert!(found[0].in_force.has_changed().is_ok());
    }
    assert!(ids(&in_force, b"", &scope("t")).is_empty());
}

#[test]
fn anchors_of_one_name_are_all_found() {
    let in_force = InForce::default();
    let (one, other) = (anchor("ca", scope("t")), anchor("ca", scope("t")));
    in_force.admit(&one);
    in_force.admit(&other);
    let both = [one.trust_anchor_id, other.trust_anchor_id];
    assert_eq!(ids(&in_force, &subject(&one), &scope("t")), both);
    in_force.dismiss(one.trust_anchor_id);
    let left = [other.trust_anchor_id];
    assert_eq!(ids(&in_force, &subject(&one), &scope("t")), left);
}

#[test]
fn anchors_of_one_name_without_number_cost_no_more_than_some() {
    let in_force = InForce::default();
    let model = anchor("a", scope("t"));
    for _ in 0..MOST_VOUCHERS * 3 {
        in_force.admit(&TrustAnchor {
            trust_anchor_id: TrustAnchorId::generate(),
            ..model.clone()
        });
    }
    let found = ids(&in_force, &subject(&model), &scope("t"));
    assert_eq!(found.len(), MOST_VOUCHERS);
}

#[test]
fn a_tenants_anchor_vouches_for_that_tenant_in_that_environment_only() {
    let in_force = InForce::default();
    let anchor = anchor("ca", scope("t"));
    in_force.admit(&anchor);
    let name = subject(&anchor);
    for plane in [Plane::Laptop, Plane::Tenant, Plane::Product, Plane::Shared] {
        let scope = Scope {
            plane,
            ..scope("t")
        };
        assert_eq!(ids(&in_force, &name, &scope).len(), 1, "{plane:?}");
    }
    for environment in [Environment::Dev, Environment::Staging] {
        let elsewhere = Scope {
            environment,
            ..scope("t")
        };
        assert!(ids(&in_force, &name, &elsewhere).is_empty());
    }
    for tenant in ["other", "T", "GLOBAL"] {
        assert!(ids(&in_force, &name, &scope(tenant)).is_empty());
    }
}

#[test]
fn the_platforms_anchors_vouch_for_everybody_and_beside_the_tenants_own() {
    let in_force = InForce::default();
    let shared = anchor("ca", scope("GLOBAL"));
    let own = anchor("ca", scope("t"));
    in_force.admit(&shared);
    in_force.admit(&own);
    let name = subject(&shared);
    let both = [shared.trust_anchor_id, own.trust_anchor_id];
    assert_eq!(ids(&in_force, &name, &scope("t")), both);
    for tenant in ["other", "GLOBAL"] {
        let elsewhere = Scope {
            environment: Environment::Dev,
            ..scope(tenant)
        };
        let found = ids(&in_force, &name, &elsewhere);
        assert_eq!(found, [shared.trust_anchor_id], "{tenant}");
    }
}

#[test]
fn an_anchor_vouches_within_its_validity_only() {
    let in_force = InForce::default();
    let anchor = anchor("ca", scope("t"));
    in_force.admit(&anchor);
    let name = subject(&anchor);
    let at = |text: &str| {
        let now = text.parse().expect("valid");
        in_force.vouchers(&name, &scope("t"), now).len()
    };
    assert_eq!(at("2026-05-31T23:59:59.999999Z"), 0);
    assert_eq!(at("2026-06-01T00:00:00Z"), 1);
    assert_eq!(at("2026-06-02T00:00:00Z"), 1);
    assert_eq!(at("2026-06-02T00:00:00.000001Z"), 0);
}

#[tokio::test]
async fn dismissing_an_anchor_ends_what_lives_by_it() {
    let in_force = InForce::default();
    let (gone, stays) = (anchor("gone", scope("t")), anchor("stays", scope("t")));
    in_force.admit(&gone);
    in_force.admit(&stays);
    let mut watched = in_force.vouchers(&subject(&gone), &scope("t"), now());
    let others = in_force.vouchers(&subject(&stays), &scope("t"), now());
    let watching = tokio::spawn(async move { watched[0].in_force.changed().await });
    in_force.dismiss(gone.trust_anchor_id);
    assert!(watching.await.expect("no panic").is_err());
    assert!(ids(&in_force, &subject(&gone), &scope("t")).is_empty());
    assert!(others[0].in_force.has_changed().is_ok());
    in_force.dismiss(gone.trust_anchor_id);
    in_force.dismiss(TrustAnchorId::generate());
    assert_eq!(ids(&in_force, &subject(&stays), &scope("t")).len(), 1);
}

#[test]
fn replacing_keeps_those_that_are_there_and_drops_the_others() {
    let in_force = InForce::default();
    let [gone, stays, new] = ["gone", "stays", "new"].map(|name| anchor(name, scope("t")));
    in_force.replace(&[gone.clone(), stays.clone()]);
    let watch = |anchor| {
        let vouchers = in_force.vouchers(&subject(anchor), &scope("t"), now());
        vouchers[0].in_force.clone()
    };
    let (of_gone, of_stays) = (watch(&gone), watch(&stays));
    in_force.replace(&[stays.clone(), new.clone()]);
    assert!(of_gone.has_changed().is_err());
    assert!(of_stays.has_changed().is_ok());
    assert!(ids(&in_force, &subject(&gone), &scope("t")).is_empty());
    for anchor in [&stays, &new] {
        let found = ids(&in_force, &subject(anchor), &scope("t"));
        assert_eq!(found, [anchor.trust_anchor_id]);
    }
    in_force.replace(&[]);
    assert!(of_stays.has_changed().is_err());
    let index = in_force.read();
    assert!(index.by_subject.is_empty() && index.places.is_empty());
}

#[test]
fn a_certificate_that_does_not_read_is_left_out_and_stops_nobody() {
    let in_force = InForce::default();
    let mut broken = anchor("broken", scope("t"));
    let name = subject(&broken);
    broken.certificate.der.truncate(40);
    let good = anchor("good", scope("t"));
    in_force.admit(&broken);
    in_force.replace(&[broken, good.clone()]);
    assert!(ids(&in_force, &name, &scope("t")).is_empty());
    assert_eq!(ids(&in_force, &subject(&good), &scope("t")).len(), 1);
}
