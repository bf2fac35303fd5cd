use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::super::authorities::ClientAuthorities;
use super::super::certificate::identity;
use super::super::revocation::RevocationLists;
use super::super::testing::{
    Authority as Ca, FakeTrustPlane, FixedClock, Issued, Leaf, at, folder_with, metrics, provider,
};
use super::*;

/// What is in force in a test.
struct World {
    authorities: Arc<Vec<Authority>>,
    revocation: Arc<Vec<RevocationList>>,
    trust_plane: Arc<FakeTrustPlane>,
    now: &'static str,
}

impl World {
    fn of(authorities: &[&Ca]) -> Self {
        // A folder must not be empty: an authority that nobody knows stands in.
        let nobody = Ca::new("nobody");
        let pem: String = authorities.iter().map(|ca| ca.pem()).collect();
        let folder = folder_with(&[("ca.pem", &format!("{}{pem}", nobody.pem()))]);
        let clock = FixedClock::usual();
        let loaded = ClientAuthorities::load(folder.path().to_owned(), clock).expect("good");
        Self {
            authorities: loaded.in_force(),
            revocation: Arc::default(),
            trust_plane: FakeTrustPlane::of(&[]),
            now: "2026-06-01T00:00:00Z",
        }
    }

    fn anchors(mut self, anchors: &[(&str, &Ca)]) -> Self {
        self.trust_plane = FakeTrustPlane::of(anchors);
        self
    }

    fn crls(mut self, lists: &[String]) -> Self {
        let folder = folder_with(&[("all.pem", &lists.concat())]);
        self.revocation = load_lists(folder.path());
        self
    }

    fn at(mut self, now: &'static str) -> Self {
        self.now = now;
        self
    }

    fn verify(&self, leaf: &Issued, sent: &[&Ca]) -> Result<InForceUntil, Refusal> {
        let sent: Vec<CertificateDer<'_>> = sent.iter().map(|ca| ca.der().clone()).collect();
        check_size(leaf.der(), &sent)?;
        let peer = identity(leaf.der())?;
        let provider = provider();
        let in_force = InForce {
            algorithms: provider.signature_verification_algorithms.all,
            authorities: &self.authorities,
            revocation: &self.revocation,
            trust_plane: &*self.trust_plane,
            now: at(self.now),
        };
        verify(&in_force, peer.spiffe_id.scope(), leaf.der(), &sent).map(|(_, until)| until)
    }

    fn refusal(&self, leaf: &Issued, sent: &[&Ca]) -> Option<Refusal> {
        self.verify(leaf, sent).err()
    }
}

fn load_lists(path: &Path) -> Arc<Vec<RevocationList>> {
    RevocationLists::load(path.to_owned(), metrics())
        .expect("good")
        .in_force()
}

fn client() -> Leaf {
    Leaf::client("acme", "M27")
}

#[test]
fn a_client_of_a_configured_authority_is_vouched_for_and_lives_by_no_anchor() {
    let ca = Ca::new("ca");
    let vouched = World::of(&[&ca]).verify(&ca.issue(&client()), &[]);
    assert!(matches!(vouched, Ok(None)), "{vouched:?}");
}

#[test]
fn nobody_else_vouches() {
    let (ca, other, namesake) = (Ca::new("ca"), Ca::new("other"), Ca::new("ca"));
    let world = World::of(&[&ca]);
    assert_eq!(
        world.refusal(&other.issue(&client()), &[]),
        Some(Refusal::UnknownAuthority)
    );
    // The right name, and another key.
    assert_eq!(
        world.refusal(&namesake.issue(&client()), &[]),
        Some(Refusal::BadSignature)
    );
    // The client's own authority sent along is still nobody's.
    assert_eq!(
        world.refusal(&other.issue(&client()), &[&other]),
        Some(Refusal::UnknownAuthority)
    );
}

#[test]
fn a_client_that_signed_itself_is_vouched_for_by_nobody() {
    let ca = Ca::new("ca");
    let itself = Ca::with("M27", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        let uri = super::super::testing::client_name("acme", "M27");
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().expect("ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let world = World::of(&[&ca]);
    let in_force = InForce {
        algorithms: provider().signature_verification_algorithms.all,
        authorities: &world.authorities,
        revocation: &[],
        trust_plane: &*world.trust_plane,
        now: at(world.now),
    };
    let peer = identity(itself.der()).expect("a name");
    let refused = verify(&in_force, peer.spiffe_id.scope(), itself.der(), &[]);
    assert_eq!(refused.err(), Some(Refusal::UnknownAuthority));
}

#[test]
fn the_time_is_held_to_the_second() {
    let ca = Ca::new("ca");
    let leaf = ca.issue(&client().valid((2026, 5, 1), (2026, 5, 31)));
    let refusal = |now| World::of(&[&ca]).at(now).refusal(&leaf, &[]);
    assert_eq!(refusal("2026-04-30T23:59:59Z"), Some(Refusal::NotYetValid));
    assert_eq!(refusal("2026-05-01T00:00:00Z"), None);
    assert_eq!(refusal("2026-05-31T00:00:00Z"), None);
    assert_eq!(refusal("2026-05-31T00:00:01Z"), Some(Refusal::Expired));
}

#[test]
fn a_configured_authority_vouches_in_its_validity_only() {
    let ca = Ca::with("ca", |params| {
        params.not_after = rcgen::date_time_ymd(2026, 7, 1);
    });
    let leaf = ca.issue(&client());
    let refusal = |now| World::of(&[&ca]).at(now).refusal(&leaf, &[]);
    assert_eq!(refusal("2026-07-01T00:00:00Z"), None);
    assert_eq!(
        refusal("2026-07-01T00:00:01Z"),
        Some(Refusal::UnknownAuthority)
    );
}

#[test]
fn a_certificate_for_something_else_is_refused() {
    let ca = Ca::new("ca");
    let world = World::of(&[&ca]);
    for leaf in [
        client().with(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        client().with(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        client().with(|params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
            ];
        }),
    ] {
        let refusal = world.refusal(&ca.issue(&leaf), &[]);
        assert_eq!(refusal, Some(Refusal::WrongUsage));
    }
    // What says nothing of its use may be used.
    let open = client().with(|params| {
        params.key_usages = Vec::new();
        params.extended_key_usages = Vec::new();
    });
    assert_eq!(world.refusal(&ca.issue(&open), &[]), None);
}

#[test]
fn authorities_between_are_the_clients_to_send() {
    let root = Ca::new("root");
    let between = root.below("between", |_| {});
    let lower = between.below("lower", |_| {});
    let leaf = lower.issue(&client());
    let world = World::of(&[&root]);
    assert_eq!(world.refusal(&leaf, &[&lower, &between]), None);
    assert_eq!(world.refusal(&leaf, &[&between, &lower]), None);
    assert_eq!(
        world.refusal(&leaf, &[&lower]),
        Some(Refusal::UnknownAuthority)
    );
    assert_eq!(world.refusal(&leaf, &[]), Some(Refusal::UnknownAuthority));
    // One that is itself in force needs nobody above it.
    assert_eq!(World::of(&[&lower]).refusal(&leaf, &[]), None);
    assert_eq!(World::of(&[&between]).refusal(&leaf, &[&lower]), None);
}

#[test]
fn an_authority_between_must_be_one_that_may_sign_and_is_valid() {
    let root = Ca::new("root");
    let world = World::of(&[&root]);
    let refusal = |change: fn(&mut rcgen::CertificateParams)| {
        let between = root.below("between", change);
        world.refusal(&between.issue(&client()), &[&between])
    };
    assert_eq!(refusal(|_| {}), None);
    assert_eq!(
        refusal(|params| params.is_ca = IsCa::ExplicitNoCa),
        Some(Refusal::WrongUsage)
    );
    assert_eq!(
        refusal(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
        Some(Refusal::WrongUsage)
    );
    assert_eq!(
        refusal(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        Some(Refusal::WrongUsage)
    );
    assert_eq!(
        refusal(|params| params.not_after = rcgen::date_time_ymd(2026, 2, 1)),
        Some(Refusal::Expired)
    );
}

#[test]
fn a_path_length_holds_in_the_chain_and_in_the_anchor() {
    let no_more = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    };
    let root = Ca::with("root", no_more);
    let between = root.below("between", |_| {});
    let refusal = World::of(&[&root]).refusal(&between.issue(&client()), &[&between]);
    assert_eq!(refusal, Some(Refusal::Constrained));
    assert_eq!(
        World::of(&[&root]).refusal(&root.issue(&client()), &[]),
        None
    );

    let root = Ca::new("root");
    let between = root.below("between", no_more);
    let lower = between.below("lower", |_| {});
    let refusal = World::of(&[&root]).refusal(&lower.issue(&client()), &[&lower, &between]);
    assert_eq!(refusal, Some(Refusal::Constrained));
}

#[test]
fn names_that_an_authority_may_not_give_are_refused() {
    let constrained = |permitted: rcgen::GeneralSubtree| {
        let ca = Ca::with("ca", |params| {
            params.name_constraints = Some(rcgen::NameConstraints {
                permitted_subtrees: vec![permitted],
                excluded_subtrees: Vec::new(),
            });
        });
        World::of(&[&ca]).refusal(&ca.issue(&client().dns(&["m27.acme.example"])), &[])
    };
    let dns = |name: &str| constrained(rcgen::GeneralSubtree::DnsName(name.to_owned()));
    assert_eq!(dns("acme.example"), None);
    assert_eq!(dns("other.example"), Some(Refusal::Constrained));
}

#[test]
fn more_certificates_than_anybody_needs_are_not_looked_at() {
    let ca = Ca::new("ca");
    let leaf = ca.issue(&client());
    let world = World::of(&[&ca]);
    let others: Vec<Ca> = (0..9).map(|_| Ca::new("x")).collect();
    let sent: Vec<&Ca> = others.iter().collect();
    assert_eq!(world.refusal(&leaf, &sent[..8]), None);
    assert_eq!(world.refusal(&leaf, &sent), Some(Refusal::ChainTooLong));
    let bulky = CertificateDer::from(vec![0; LARGEST_CHAIN]);
    assert_eq!(
        check_size(leaf.der(), &[bulky]).err(),
        Some(Refusal::ChainTooLong)
    );
}

#[test]
fn what_is_revoked_is_refused_the_client_and_what_stands_above_it() {
    let root = Ca::new("root");
    let between = root.below("between", |_| {});
    let (leaf, other) = (between.issue(&client()), between.issue(&client()));
    let empty = || [root.crl(&[]), between.crl(&[])];
    let world = World::of(&[&root]);
    assert_eq!(world.refusal(&leaf, &[&between]), None);
    let world = world.crls(&empty());
    assert_eq!(world.refusal(&leaf, &[&between]), None);

    let world = World::of(&[&root]).crls(&[root.crl(&[]), between.crl(&[leaf.serial()])]);
    assert_eq!(world.refusal(&leaf, &[&between]), Some(Refusal::Revoked));
    assert_eq!(world.refusal(&other, &[&between]), None);

    let world = World::of(&[&root]).crls(&[root.crl(&[between.serial()])]);
    assert_eq!(world.refusal(&leaf, &[&between]), Some(Refusal::Revoked));
}

#[test]
fn an_overdue_list_refuses_those_whom_it_is_about_and_nobody_else() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let world = || World::of(&[&ca, &other]).crls(&[ca.crl(&[])]);
    let (leaf, free) = (ca.issue(&client()), other.issue(&client()));
    let before = world().at("2026-06-30T23:59:59Z");
    assert_eq!(before.refusal(&leaf, &[]), None);
    let after = world().at("2026-07-01T00:00:01Z");
    assert_eq!(after.refusal(&leaf, &[]), Some(Refusal::CrlExpired));
    assert_eq!(after.refusal(&free, &[]), None);
}

#[test]
fn a_list_of_another_authority_counts_for_nothing() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let leaf = ca.issue(&client());
    let world = World::of(&[&ca]).crls(&[other.crl(&[leaf.serial()])]);
    assert_eq!(world.refusal(&leaf, &[]), None);
}

#[test]
fn an_authority_renewed_under_its_name_is_held_to_its_own_list() {
    let (old, new) = (Ca::new("ca"), Ca::new("ca"));
    let (of_old, of_new) = (old.issue(&client()), new.issue(&client()));
    // The list of the old key says nothing of the new one's clients.
    let world = World::of(&[&old, &new]).crls(&[old.crl(&[of_old.serial(), of_new.serial()])]);
    assert_eq!(world.refusal(&of_new, &[]), None);
    assert_eq!(world.refusal(&of_old, &[]), Some(Refusal::Revoked));
    let both = [old.crl(&[]), new.crl(&[of_new.serial()])];
    let world = World::of(&[&old, &new]).crls(&both);
    assert_eq!(world.refusal(&of_new, &[]), Some(Refusal::Revoked));
    assert_eq!(world.refusal(&of_old, &[]), None);
}

#[test]
fn a_list_with_a_bad_signature_stops_its_authority() {
    let ca = Ca::new("ca");
    let mut der = ca.crl_der(&[]);
    let last = der.len() - 1;
    der[last] ^= 1;
    let folder = folder_with(&[]);
    std::fs::write(folder.path().join("bad.crl"), der).expect("written");
    let mut world = World::of(&[&ca]);
    world.revocation = load_lists(folder.path());
    assert_eq!(
        world.refusal(&ca.issue(&client()), &[]),
        Some(Refusal::CrlUntrusted)
    );
}

#[test]
fn an_anchor_of_a_tenant_vouches_for_its_clients_and_no_other_tenants() {
    let anchor = Ca::new("acme ca");
    let world = World::of(&[]).anchors(&[("acme", &anchor)]);
    let own = world.verify(&anchor.issue(&client()), &[]);
    assert!(matches!(own, Ok(Some(_))), "{own:?}");
    let foreign = anchor.issue(&Leaf::client("globex", "M27"));
    assert_eq!(
        world.refusal(&foreign, &[]),
        Some(Refusal::UnknownAuthority)
    );
    // Nor for the platform's.
    let platform = anchor.issue(&Leaf::client("GLOBAL", "M32"));
    assert_eq!(
        world.refusal(&platform, &[]),
        Some(Refusal::UnknownAuthority)
    );
}

#[test]
fn an_anchor_of_the_platform_vouches_for_every_tenant() {
    let anchor = Ca::new("platform ca");
    let world = World::of(&[]).anchors(&[("GLOBAL", &anchor)]);
    for tenant in ["acme", "globex", "GLOBAL"] {
        let leaf = anchor.issue(&Leaf::client(tenant, "M27"));
        assert_eq!(world.refusal(&leaf, &[]), None, "{tenant}");
    }
}

#[test]
fn an_anchor_may_stand_below_a_root_and_above_others() {
    let root = Ca::new("root");
    let anchor = root.below("anchor", |_| {});
    let lower = anchor.below("lower", |_| {});
    let world = World::of(&[]).anchors(&[("acme", &anchor)]);
    assert_eq!(world.refusal(&anchor.issue(&client()), &[]), None);
    assert_eq!(world.refusal(&lower.issue(&client()), &[&lower]), None);
    // The anchor itself sent along does no harm.
    assert_eq!(
        world.refusal(&lower.issue(&client()), &[&lower, &anchor]),
        None
    );
}

#[test]
fn an_anchor_is_held_to_its_own_constraints_and_to_the_lists() {
    let short = Ca::with("short", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let lower = short.below("lower", |_| {});
    let world = World::of(&[]).anchors(&[("acme", &short)]);
    assert_eq!(
        world.refusal(&lower.issue(&client()), &[&lower]),
        Some(Refusal::Constrained)
    );
    let for_servers = Ca::with("servers", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let world = World::of(&[]).anchors(&[("acme", &for_servers)]);
    assert_eq!(
        world.refusal(&for_servers.issue(&client()), &[]),
        Some(Refusal::WrongUsage)
    );
    let anchor = Ca::new("anchor");
    let leaf = anchor.issue(&client());
    let world = World::of(&[])
        .anchors(&[("acme", &anchor)])
        .crls(&[anchor.crl(&[leaf.serial()])]);
    assert_eq!(world.refusal(&leaf, &[]), Some(Refusal::Revoked));
}

#[test]
fn a_configured_authority_is_preferred_to_the_same_one_as_an_anchor() {
    let ca = Ca::new("ca");
    let leaf = ca.issue(&client());
    let world = World::of(&[&ca]).anchors(&[("acme", &ca)]);
    assert!(matches!(world.verify(&leaf, &[]), Ok(None)));
}

#[test]
fn an_anchor_that_is_taken_out_of_force_is_noticed_and_vouches_no_more() {
    let anchor = Ca::new("anchor");
    let world = World::of(&[]).anchors(&[("acme", &anchor)]);
    let leaf = anchor.issue(&client());
    let in_force = world.verify(&leaf, &[]).expect("vouched for");
    let in_force = in_force.expect("lives by an anchor");
    assert!(in_force.has_changed().is_ok());
    world.trust_plane.remove(&anchor);
    assert!(in_force.has_changed().is_err());
    assert_eq!(world.refusal(&leaf, &[]), Some(Refusal::UnknownAuthority));
}

#[test]
fn so_many_anchors_of_one_name_are_tried_and_no_more() {
    let same_name: Vec<Ca> = (0..=MOST_VOUCHERS).map(|_| Ca::new("anchor")).collect();
    let anchors: Vec<_> = same_name.iter().map(|ca| ("acme", ca)).collect();
    let world = World::of(&[]).anchors(&anchors);
    let client_of = |der: &[u8]| {
        let issuer = same_name.iter().find(|ca| ca.der().as_ref() == der);
        issuer.expect("one of them").issue(&client())
    };
    let leaf = same_name[0].issue(&client());
    let issuer = link(leaf.der()).ok().expect("reads").issuer;
    let scope = identity(leaf.der())
        .expect("good")
        .spiffe_id
        .scope()
        .clone();
    let order = world.trust_plane.vouchers(&issuer, &scope, at(world.now));
    let (first, last) = (&order[0], &order[MOST_VOUCHERS]);
    assert!(world.verify(&client_of(&first.der), &[]).is_ok());
    assert!(world.verify(&client_of(&last.der), &[]).is_err());
}
