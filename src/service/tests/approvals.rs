//! An approval that somebody else acts on in the very moment between the look
//! and the deed: only the transaction can tell, and it does.

use super::*;
use crate::domain::approval::{Approval, ApprovalSubject, Grant};
use crate::domain::error::{ApprovalFault, AuthorizationFault};
use crate::domain::secret::SecretBytes;

/// Takes every token for one approver's word, named by the token itself.
pub(super) struct TrustingIam;

#[async_trait]
impl IamClient for TrustingIam {
    async fn authenticate(&self, _: Credentials) -> Result<Caller, KmsError> {
        Ok(context().caller)
    }

    async fn verify_approval(
        &self,
        _: &Caller,
        token: &ApprovalToken,
        subject: &ApprovalSubject,
    ) -> Result<Approval, KmsError> {
        let token_id = String::from_utf8_lossy(token.expose()).into_owned();
        Ok(Approval::new(subject.clone(), vec![grant(&token_id)]))
    }
}

fn grant(token_id: &str) -> Grant {
    Grant {
        approver: "alice".to_owned(),
        token_id: token_id.to_owned(),
        usable_until: "2100-01-01T00:00:00Z".parse().expect("valid"),
    }
}

pub(super) fn approved(token_id: &str) -> RequestContext {
    RequestContext {
        approval: Some(SecretBytes::from(token_id.to_owned())),
        ..context()
    }
}

fn request(requires_approval: bool) -> GenerateKeyRequest {
    GenerateKeyRequest {
        scope: scope(),
        key_type: KeyType::Ed25519,
        key_usage: KeyUsageSet::of([KeyUsage::Sign]).expect("not empty"),
        key_alias: None,
        access_policy: AccessPolicyChoice {
            requires_approval: Some(requires_approval),
            max_usage_per_day: Some(1),
            ..AccessPolicyChoice::default()
        },
        rotation_period: None,
    }
}

impl Bench {
    /// Somebody else's deed with this approval comes first.
    pub(super) fn somebody_spends(&self, token_id: &str) {
        let receipt = self
            .ledger
            .sign(crate::domain::receipt::tests::receipt())
            .expect("signed");
        self.store.next(Next::After(Transaction {
            key_use: None,
            changes: vec![Change::SpendGrant(grant(token_id))],
            receipts: vec![receipt],
        }));
    }

    async fn newest(&self) -> String {
        let newest = self.store.newest_receipt().await.expect("memory");
        String::from_utf8(newest.expect("there").leaf).expect("UTF-8")
    }

    /// Checks that the newest receipt is of a refusal that spent nothing.
    async fn assert_refused(&self, refusal: Option<KmsError>, receipts: u64) {
        assert!(
            matches!(
                refusal,
                Some(KmsError::Unauthorized(AuthorizationFault::Approval(
                    ApprovalFault::AlreadyUsed
                )))
            ),
            "{refusal:?}"
        );
        assert_eq!(self.service.ledger_size(), receipts);
        let newest = self.newest().await;
        assert!(
            newest.contains(r#""error_code":"UNAUTHORIZED""#),
            "{newest}"
        );
        assert!(!newest.contains("approvals"), "{newest}");
    }
}

#[tokio::test]
async fn a_key_whose_approval_was_spent_meanwhile_was_never_made() {
    let bench = bench_with(Arc::new(TrustingIam), true);
    bench.somebody_spends("1");
    let made = bench
        .service
        .generate_key(&approved("1"), request(false))
        .await;
    bench.assert_refused(made.err(), 2).await;
    let counts = bench.service.key_counts();
    assert_eq!(counts.get(KeyType::Ed25519, KeyState::Active), 0);
    let again = bench
        .service
        .generate_key(&approved("1"), request(false))
        .await;
    bench.assert_refused(again.err(), 3).await;
}

#[tokio::test]
async fn steps_whose_approval_was_spent_meanwhile_are_not_taken() {
    let bench = bench_with(Arc::new(TrustingIam), true);
    let made = bench
        .service
        .generate_key(&approved("0"), request(false))
        .await;
    let key_id = made.expect("made").record.key_id;
    let key = KeyRef::Id(key_id);
    bench.somebody_spends("1");
    let rotated = bench
        .service
        .rotate_key(&approved("1"), &scope(), &key, Rotation::Planned)
        .await;
    bench.assert_refused(rotated.err(), 3).await;
    bench.somebody_spends("2");
    let request = RevokeKeyRequest {
        scope: scope(),
        key: key.clone(),
        reason: RevocationReason::Retired,
    };
    let revoked = bench.service.revoke_key(&approved("2"), request).await;
    bench.assert_refused(revoked.err(), 5).await;
    let found = bench.service.get_key(&context(), &scope(), &key).await;
    assert_eq!(found.expect("there").0.key_state, KeyState::Active);
}

#[tokio::test]
async fn a_use_whose_approval_was_spent_meanwhile_gives_nothing_out_and_is_given_back() {
    let bench = bench_with(Arc::new(TrustingIam), true);
    let made = bench
        .service
        .generate_key(&approved("0"), request(true))
        .await;
    let key_id = made.expect("made").record.key_id;
    bench.somebody_spends("1");
    let data = Bytes::from_static(b"data");
    let signed = bench
        .service
        .sign(&approved("1"), &choice(key_id), data.clone())
        .await;
    bench.assert_refused(signed.err(), 3).await;
    // The one use of the day is still there, and the receipt names who agreed.
    let signed = bench
        .service
        .sign(&approved("2"), &choice(key_id), data)
        .await;
    signed.expect("signed");
    let newest = bench.newest().await;
    let approvals = r#""approvals":[{"approver":"alice","jti":"2"}]"#;
    assert!(newest.contains(approvals), "{newest}");
}

#[tokio::test]
async fn an_approval_whose_deed_could_not_be_kept_is_not_spent() {
    let bench = bench_with(Arc::new(TrustingIam), true);
    bench.store.next(Next::Fail);
    let failed = bench
        .service
        .generate_key(&approved("1"), request(false))
        .await;
    assert!(is_away(&failed.err().expect("failed"), Dependency::Store));
    let made = bench
        .service
        .generate_key(&approved("1"), request(false))
        .await;
    assert!(made.is_ok());
}
