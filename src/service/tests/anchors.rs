//! Trust anchors: what is kept and what is in force stay the same, and an
//! approval counts once, whatever happens in the middle.

use std::future::Future as _;
use std::task::{Context, Waker};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::*;
use crate::domain::approval::{Approval, ApprovalSubject, ApprovalTarget, ApprovalToken, Grant};
use crate::domain::error::{ApprovalFault, AuthorizationFault, CertificateFault, RequestFault};
use crate::domain::policy::ApprovalGroup;
use crate::domain::trust_anchor::AnchorType;

pub(super) fn certificate() -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    certificate.der().to_vec()
}

/// The subject of all of them: SEQUENCE of SET of SEQUENCE of 2.5.4.3 and "ca".
const SUBJECT: [u8; 15] = [
    0x30, 13, 0x31, 11, 0x30, 9, 0x06, 3, 0x55, 4, 3, 0x0c, 2, b'c', b'a',
];

/// Approves what each token says, and every token is a grant of its own name.
struct ApprovingIam;

#[async_trait]
impl IamClient for ApprovingIam {
    async fn authenticate(&self, _: Credentials) -> Result<Caller, KmsError> {
        Ok(context().caller)
    }

    async fn verify_approval(
        &self,
        _caller: &Caller,
        token: &ApprovalToken,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError> {
        let text = String::from_utf8(token.expose().to_vec()).expect("text");
        let mut subject = subject.clone();
        if text == "for another" {
            subject.target = ApprovalTarget::Key(KeyId::generate());
        }
        let grants = text.split(',').map(|name| Grant {
            approver: "approver@example.org".to_owned(),
            token_id: name.to_owned(),
            usable_until: SystemClock.now(),
        });
        Ok(Approval::new(subject, grants.collect()))
    }
}

/// A bench where trust anchors need approvals.
fn approving() -> Bench {
    let mut bench = bench();
    bench.service.ports.iam = Arc::new(ApprovingIam);
    bench.service.policy.approvals.operations = vec![ApprovalGroup::TrustAnchor];
    bench
}

fn approved(token: &str) -> RequestContext {
    RequestContext {
        approval: Some(token.to_owned().into()),
        ..context()
    }
}

impl Bench {
    async fn add(
        &self,
        context: &RequestContext,
        certificate: &[u8],
    ) -> Result<TrustAnchorAdded, KmsError> {
        let request = AddTrustAnchorRequest {
            scope: scope(),
            certificate: Bytes::copy_from_slice(certificate),
            anchor_type: AnchorType::Root,
        };
        self.service.add_trust_anchor(context, request).await
    }

    async fn added(&self) -> TrustAnchorId {
        let added = self.add(&context(), &certificate()).await;
        added.expect("taken in").anchor.trust_anchor_id
    }

    async fn remove(&self, context: &RequestContext, id: TrustAnchorId) -> Option<KmsError> {
        let service = &self.service;
        let removed = service.remove_trust_anchor(context, &scope(), id).await;
        removed.err()
    }

    pub(super) fn in_force(&self) -> Vec<TrustAnchorId> {
        let ports = &self.service.ports;
        let vouchers = ports
            .trust_plane
            .vouchers(&SUBJECT, &scope(), ports.clock.now());
        vouchers.iter().map(|one| one.trust_anchor_id).collect()
    }

    async fn kept(&self) -> Vec<TrustAnchorId> {
        let kept = self.store.all_trust_anchors().await.expect("memory");
        kept.iter().map(|one| one.trust_anchor_id).collect()
    }

    async fn newest_leaf(&self) -> String {
        let newest = self.store.newest_receipt().await.expect("memory");
        String::from_utf8(newest.expect("there").leaf).expect("UTF-8")
    }
}

fn refused_for(error: Option<KmsError>) -> ApprovalFault {
    match error {
        Some(KmsError::Unauthorized(AuthorizationFault::Approval(fault))) => fault,
        other => panic!("expected a refused approval, got {other:?}"),
    }
}

#[tokio::test]
async fn an_anchor_is_in_force_from_its_adding_to_its_removal() {
    let bench = bench();
    let id = bench.added().await;
    assert_eq!(bench.in_force(), [id]);
    assert!(bench.remove(&context(), id).await.is_none());
    assert!(bench.in_force().is_empty() && bench.kept().await.is_empty());
    let again = bench.remove(&context(), id).await;
    assert!(matches!(
        again,
        Some(KmsError::InvalidRequest(RequestFault::UnknownTrustAnchor))
    ));
    let leaf = bench.newest_leaf().await;
    assert!(leaf.contains(r#""operation_type":"trust_anchor_remove","success":false"#));
    assert!(leaf.contains(&format!(r#""key_id":"{id}""#)), "{leaf}");
}

#[tokio::test]
async fn an_anchor_that_was_refused_is_not_in_force() {
    let bench = bench();
    let certificate = certificate();
    let first = bench.add(&context(), &certificate).await;
    let id = first.expect("taken in").anchor.trust_anchor_id;
    let again = bench.add(&context(), &certificate).await.err();
    assert!(matches!(
        again,
        Some(KmsError::InvalidRequest(RequestFault::Certificate(
            CertificateFault::Duplicate
        )))
    ));
    assert_eq!(bench.in_force(), [id]);
}

#[tokio::test]
async fn an_approval_counts_once_for_anchors() {
    let bench = approving();
    let missing = bench.add(&context(), &certificate()).await.err();
    assert_eq!(refused_for(missing), ApprovalFault::Missing);
    let added = bench.add(&approved("one,two"), &certificate()).await;
    let id = added.expect("approved").anchor.trust_anchor_id;
    let leaf = bench.newest_leaf().await;
    assert!(leaf.contains(r#""jti":"one""#) && leaf.contains(r#""jti":"two""#));

    let again = bench.add(&approved("two"), &certificate()).await.err();
    assert_eq!(refused_for(again), ApprovalFault::AlreadyUsed);
    let leaf = bench.newest_leaf().await;
    assert!(leaf.contains(r#""error_code":"UNAUTHORIZED""#), "{leaf}");
    let removal = bench.remove(&approved("three,one"), id).await;
    assert_eq!(refused_for(removal), ApprovalFault::AlreadyUsed);
    assert_eq!((bench.in_force(), bench.kept().await), (vec![id], vec![id]));
    let leaf = bench.newest_leaf().await;
    assert!(leaf.contains(r#""operation_type":"trust_anchor_remove","success":false"#));

    // Nothing of the refused removal was spent.
    assert!(bench.remove(&approved("three"), id).await.is_none());
    let leaf = bench.newest_leaf().await;
    assert!(leaf.contains(r#""jti":"three""#), "{leaf}");
    assert!(bench.in_force().is_empty());
}

#[tokio::test]
async fn an_approval_of_something_else_moves_no_anchor() {
    let bench = approving();
    let added = bench.add(&approved("for another"), &certificate()).await;
    assert_eq!(refused_for(added.err()), ApprovalFault::WrongSubject);
    let added = bench.add(&approved("one"), &certificate()).await;
    let id = added.expect("approved").anchor.trust_anchor_id;
    let removal = bench.remove(&approved("for another"), id).await;
    assert_eq!(refused_for(removal), ApprovalFault::WrongSubject);
    assert_eq!(bench.in_force(), [id]);
}

#[tokio::test]
async fn what_the_store_did_not_answer_is_settled_by_the_next_probe() {
    let bench = bench();
    for (next, is_kept) in [(Next::KeepAndFail, true), (Next::Fail, false)] {
        let before = bench.in_force();
        bench.store.next(next);
        let failure = bench.add(&context(), &certificate()).await.err();
        assert!(is_away(&failure.expect("failed"), Dependency::Store));
        assert_eq!(bench.in_force(), before);
        bench.service.probe_health().await;
        assert_eq!(bench.in_force().len(), before.len() + usize::from(is_kept));
        assert_eq!(bench.in_force(), bench.kept().await);
    }
}

#[tokio::test]
async fn an_anchor_whose_removal_was_not_answered_vouches_for_nobody_until_it_is() {
    let bench = bench();
    let id = bench.added().await;
    bench.store.next(Next::Fail);
    let failure = bench.remove(&context(), id).await.expect("failed");
    assert!(is_away(&failure, Dependency::Store));
    assert!(bench.in_force().is_empty());
    bench.service.probe_health().await;
    assert_eq!(bench.in_force(), [id], "the store has it still");

    bench.store.next(Next::KeepAndFail);
    let failure = bench.remove(&context(), id).await.expect("failed");
    assert!(is_away(&failure, Dependency::Store));
    assert!(bench.in_force().is_empty());
    bench.service.probe_health().await;
    assert!(bench.in_force().is_empty() && bench.kept().await.is_empty());
}

#[tokio::test]
async fn a_ledger_that_cannot_sign_leaves_the_anchors_as_they_are() {
    let bench = bench();
    let id = bench.added().await;
    *bench.ledger.broken.lock().unwrap() = true;
    let failure = bench.remove(&context(), id).await.expect("failed");
    assert!(is_away(&failure, Dependency::Ledger), "{failure:?}");
    let failure = bench.add(&context(), &certificate()).await.err();
    assert!(is_away(&failure.expect("failed"), Dependency::Ledger));
    assert_eq!((bench.in_force(), bench.kept().await), (vec![id], vec![id]));
}

#[tokio::test]
async fn a_removal_that_nobody_waits_for_any_longer_is_settled_too() {
    let bench = bench();
    let id = bench.added().await;
    bench.store.next(Next::Stall);
    {
        let request = context();
        let mut removal = std::pin::pin!(bench.remove(&request, id));
        let mut context = Context::from_waker(Waker::noop());
        assert!(removal.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(bench.kept().await, []);
    assert!(bench.in_force().is_empty());
    bench.service.probe_health().await;
    assert!(bench.in_force().is_empty());
}

#[tokio::test]
async fn an_anchor_removed_before_it_was_put_in_force_does_not_stay() {
    let bench = bench();
    bench.store.next(Next::ThenAnchorGone);
    let added = bench.add(&context(), &certificate()).await;
    added.expect("it was kept, for a moment");
    assert!(bench.kept().await.is_empty());
    assert!(bench.in_force().is_empty());
}

#[tokio::test]
async fn another_tenants_anchors_are_nobodys() {
    let bench = bench();
    let id = bench.added().await;
    let elsewhere = Scope {
        tenant_id: "other".parse().expect("valid"),
        ..scope()
    };
    let service = &bench.service;
    let removal = service
        .remove_trust_anchor(&context(), &elsewhere, id)
        .await;
    assert!(matches!(
        removal.err(),
        Some(KmsError::InvalidRequest(RequestFault::UnknownTrustAnchor))
    ));
    let stranger = RequestContext {
        caller: Caller::new("M21".parse().expect("valid"), Reach::Scope(elsewhere)),
        ..context()
    };
    let list = ListTrustAnchorsRequest {
        scope: scope(),
        after: None,
        limit: 10,
    };
    let refusals = [
        service.list_trust_anchors(&stranger, list).await.err(),
        bench.add(&stranger, &certificate()).await.err(),
        bench.remove(&stranger, id).await,
    ];
    for refusal in refusals {
        assert!(matches!(
            refusal,
            Some(KmsError::Unauthorized(AuthorizationFault::ForeignScope))
        ));
    }
    assert_eq!(bench.in_force(), [id]);
}
