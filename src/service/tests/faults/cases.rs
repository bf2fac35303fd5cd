//! One request of every kind, on a service that has something of everything.

use std::sync::LazyLock;

use super::super::anchors::certificate;
use super::super::approvals::{TrustingIam, approved};
use super::super::*;
use crate::domain::algorithm::AeadAlgorithm;
use crate::domain::key::KeyUpdate;
use crate::domain::trust_anchor::AnchorType;
use crate::ports::hsm::Encrypted;

/// One request of every kind, and some that are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Generate,
    GenerateUnapproved,
    Rotate,
    RotateUnknown,
    RotateInEmergency,
    Archive,
    ArchiveUnapproved,
    Update,
    UpdateTakenAlias,
    Revoke,
    RevokeCompromised,
    RevokeAgain,
    Hurry,
    Restore,
    RestoreLiving,
    Sign,
    SignApproved,
    SignUnknown,
    Verify,
    VerifyBadSignature,
    Encrypt,
    Decrypt,
    DecryptBadTag,
    AddAnchor,
    AddAnchorTwice,
    RemoveAnchor,
    RemoveUnknownAnchor,
    ShowKey,
    ShowKeyByAlias,
    ShowVersions,
    ListKeys,
    ListAnchors,
    ShowReceipt,
    ListReceipts,
    HashTile,
    EntryTile,
    Consistency,
    EarlierConsistency,
    LedgerKeys,
    HoldToCheckpoint,
}

static CERTIFICATES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [certificate(), certificate()]);

/// Approvals that the cases may spend; the others are of the preparations.
pub(super) const TOKENS: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "case", "again"];

/// A service with something of everything.
pub(super) struct Prepared {
    pub(super) bench: Bench,
    key_id: KeyId,
    approved_key_id: KeyId,
    secret_id: KeyId,
    retired_id: KeyId,
    signature: Vec<u8>,
    sealed: Encrypted,
    anchor_id: TrustAnchorId,
    receipt_id: ReceiptId,
    note: String,
}

fn request(key_type: KeyType, alias: &str, requires_approval: bool) -> GenerateKeyRequest {
    let usages = match key_type {
        KeyType::Aes256 => [KeyUsage::Encrypt, KeyUsage::Decrypt],
        KeyType::Ed25519 | KeyType::Rsa2048 => [KeyUsage::Sign, KeyUsage::Verify],
    };
    GenerateKeyRequest {
        scope: scope(),
        key_type,
        key_usage: KeyUsageSet::of(usages).expect("not empty"),
        key_alias: Some(alias.parse().expect("valid")),
        access_policy: AccessPolicyChoice {
            requires_approval: Some(requires_approval),
            max_usage_per_day: Some(10),
            ..AccessPolicyChoice::default()
        },
        rotation_period: None,
    }
}

fn anchor_request(certificate: &[u8]) -> AddTrustAnchorRequest {
    AddTrustAnchorRequest {
        scope: scope(),
        certificate: Bytes::copy_from_slice(certificate),
        anchor_type: AnchorType::Root,
    }
}

const DATA: Bytes = Bytes::from_static(b"data");

pub(super) async fn prepared() -> Prepared {
    let mut bench = bench_with(Arc::new(TrustingIam), true);
    let policy = &mut bench.service.policy;
    policy.approvals.operations.push(ApprovalGroup::TrustAnchor);
    policy.auditors = vec!["M21".parse().expect("valid")];
    let service = &bench.service;
    let make = async |token, key_type, alias, requires_approval| {
        let request = request(key_type, alias, requires_approval);
        let made = service.generate_key(&approved(token), request).await;
        made.expect("made").record.key_id
    };
    let key_id = make("a", KeyType::Ed25519, "line", false).await;
    let approved_key_id = make("b", KeyType::Ed25519, "approved", true).await;
    let secret_id = make("c", KeyType::Aes256, "secret", false).await;
    let retired_id = make("e", KeyType::Ed25519, "retired", false).await;
    let request = revocation_of(retired_id, RevocationReason::Retired);
    let retired = service.revoke_key(&approved("f"), request).await;
    assert!(retired.expect("revoked").record.erase_at.is_some());
    let signed = service.sign(&context(), &choice(key_id), DATA).await;
    let signed = signed.expect("signed");
    let sealed = service
        .encrypt(&context(), &cipher(secret_id), DATA, Bytes::new())
        .await;
    let added = service
        .add_trust_anchor(&approved("d"), anchor_request(&CERTIFICATES[0]))
        .await;
    Prepared {
        key_id,
        approved_key_id,
        secret_id,
        retired_id,
        signature: signed.output,
        sealed: sealed.expect("encrypted").output,
        anchor_id: added.expect("added").anchor.trust_anchor_id,
        receipt_id: signed.receipt_id,
        note: service.checkpoint(),
        bench,
    }
}

fn revocation_of(key_id: KeyId, reason: RevocationReason) -> RevokeKeyRequest {
    RevokeKeyRequest {
        scope: scope(),
        key: KeyRef::Id(key_id),
        reason,
    }
}

fn update_to(alias: &str) -> KeyUpdate {
    KeyUpdate {
        key_alias: Some(Some(alias.parse().expect("valid"))),
        access_policy: AccessPolicyChoice {
            max_usage_per_day: Some(11),
            ..AccessPolicyChoice::default()
        },
    }
}

fn cipher(key_id: KeyId) -> KeyChoice<AeadAlgorithm> {
    KeyChoice {
        scope: scope(),
        key: KeyRef::Id(key_id),
        algorithm: None,
    }
}

fn receipt_of<T>(used: Used<T>) -> Option<ReceiptId> {
    Some(used.receipt_id)
}

impl Prepared {
    /// Asks; answers the receipt where there is one.
    pub(super) async fn ask(&self, case: Case) -> Result<Option<ReceiptId>, KmsError> {
        let service = &self.bench.service;
        let (nobody, somebody) = (context(), approved("case"));
        let key = KeyRef::Id(self.key_id);
        let signature = Bytes::copy_from_slice(&self.signature);
        let (pair, secret) = (choice(self.key_id), cipher(self.secret_id));
        match case {
            Case::Generate | Case::GenerateUnapproved => {
                let context = match case {
                    Case::Generate => &somebody,
                    _ => &nobody,
                };
                let request = request(KeyType::Ed25519, "new", false);
                let made = service.generate_key(context, request).await;
                made.map(|made| Some(made.receipt_id))
            }
            Case::Rotate | Case::RotateUnknown => {
                let key = match case {
                    Case::Rotate => key,
                    _ => KeyRef::Id(KeyId::from_bytes([9; 16])),
                };
                let rotated = service
                    .rotate_key(&somebody, &scope(), &key, Rotation::Planned)
                    .await;
                rotated.map(|rotated| Some(rotated.receipt_id))
            }
            Case::RotateInEmergency => {
                let rotated = service
                    .rotate_key(&somebody, &scope(), &key, Rotation::Emergency)
                    .await;
                rotated.map(|rotated| Some(rotated.receipt_id))
            }
            Case::Archive | Case::ArchiveUnapproved => {
                let context = match case {
                    Case::Archive => &somebody,
                    _ => &nobody,
                };
                let archived = service.archive_key(context, &scope(), &key).await;
                archived.map(|archived| Some(archived.receipt_id))
            }
            Case::Update | Case::UpdateTakenAlias => {
                let update = update_to(match case {
                    Case::Update => "another",
                    _ => "secret",
                });
                let updated = service.update_key(&somebody, &scope(), &key, &update).await;
                updated.map(|updated| Some(updated.receipt_id))
            }
            Case::Restore | Case::RestoreLiving => {
                let key = match case {
                    Case::Restore => KeyRef::Id(self.retired_id),
                    _ => key,
                };
                let restored = service.restore_key(&somebody, &scope(), &key).await;
                restored.map(|restored| Some(restored.receipt_id))
            }
            Case::Revoke | Case::RevokeCompromised | Case::RevokeAgain | Case::Hurry => {
                let key_id = match case {
                    Case::Revoke | Case::RevokeCompromised => self.key_id,
                    _ => self.retired_id,
                };
                let reason = match case {
                    Case::Revoke | Case::RevokeAgain => RevocationReason::Retired,
                    _ => RevocationReason::Compromised,
                };
                let request = revocation_of(key_id, reason);
                let revoked = service.revoke_key(&somebody, request).await;
                revoked.map(|revoked| Some(revoked.receipt_id))
            }
            Case::Sign => {
                let signed = service.sign(&nobody, &pair, DATA);
                signed.await.map(receipt_of)
            }
            Case::SignApproved => {
                let key = choice(self.approved_key_id);
                service.sign(&somebody, &key, DATA).await.map(receipt_of)
            }
            Case::SignUnknown => {
                let unknown = choice(KeyId::from_bytes([9; 16]));
                service.sign(&nobody, &unknown, DATA).await.map(receipt_of)
            }
            Case::Verify | Case::VerifyBadSignature => {
                let data = match case {
                    Case::Verify => DATA,
                    _ => Bytes::from_static(b"other"),
                };
                let verified = service.verify(&nobody, &pair, data, signature).await;
                verified.map(receipt_of)
            }
            Case::Encrypt => {
                let encrypted = service.encrypt(&nobody, &secret, DATA, Bytes::new());
                encrypted.await.map(receipt_of)
            }
            Case::Decrypt | Case::DecryptBadTag => {
                let mut ciphertext = self.sealed.ciphertext.clone();
                ciphertext[0] ^= u8::from(case == Case::DecryptBadTag);
                let sealed = Ciphertext {
                    ciphertext: ciphertext.into(),
                    nonce: self.sealed.nonce,
                    aad: Bytes::new(),
                };
                let opened = service.decrypt(&nobody, &secret, sealed);
                opened.await.map(receipt_of)
            }
            Case::AddAnchor | Case::AddAnchorTwice => {
                let certificate = &CERTIFICATES[usize::from(case == Case::AddAnchor)];
                let request = anchor_request(certificate);
                let added = service.add_trust_anchor(&somebody, request).await;
                added.map(|added| Some(added.receipt_id))
            }
            Case::RemoveAnchor | Case::RemoveUnknownAnchor => {
                let id = match case {
                    Case::RemoveAnchor => self.anchor_id,
                    _ => TrustAnchorId::from_bytes([9; 16]),
                };
                let removed = service.remove_trust_anchor(&somebody, &scope(), id).await;
                removed.map(|removed| Some(removed.receipt_id))
            }
            _ => self.read(case).await.map(|()| None),
        }
    }

    async fn read(&self, case: Case) -> Result<(), KmsError> {
        let (service, context) = (&self.bench.service, context());
        match case {
            Case::ShowKey => {
                let key = KeyRef::Id(self.key_id);
                service.get_key(&context, &scope(), &key).await.map(drop)
            }
            Case::ShowKeyByAlias => {
                let key = KeyRef::Alias("line".parse().expect("valid"));
                service.get_key(&context, &scope(), &key).await.map(drop)
            }
            Case::ShowVersions => {
                let key = KeyRef::Id(self.key_id);
                let versions = service
                    .key_versions(&context, &scope(), &key, None, 10)
                    .await;
                versions.map(drop)
            }
            Case::ListKeys => {
                let request = ListKeysRequest {
                    scope: scope(),
                    key_state: None,
                    key_type: None,
                    key_alias: None,
                    after: None,
                    limit: 10,
                };
                service.list_keys(&context, request).await.map(drop)
            }
            Case::ListAnchors => {
                let request = ListTrustAnchorsRequest {
                    scope: scope(),
                    after: None,
                    limit: 10,
                };
                service
                    .list_trust_anchors(&context, request)
                    .await
                    .map(drop)
            }
            Case::ShowReceipt => {
                let scope = scope();
                let found = service.get_receipt(&context, &scope, self.receipt_id);
                found.await.map(drop)
            }
            Case::ListReceipts => {
                let query = ReceiptQuery {
                    scope: scope(),
                    key_id: None,
                    operation: None,
                    from: None,
                    until: None,
                    after: None,
                    limit: 10,
                };
                service.list_receipts(&context, query).await.map(drop)
            }
            Case::HashTile | Case::EntryTile => {
                let path = match case {
                    Case::HashTile => "0/000.p/3",
                    _ => "entries/000.p/3",
                };
                let path = path.parse().expect("valid");
                service.tile(&context.caller, &path).await.map(drop)
            }
            Case::Consistency => service.prove_consistency(2, None).await.map(drop),
            Case::EarlierConsistency => service.prove_consistency(2, Some(3)).await.map(drop),
            Case::LedgerKeys => service.ledger_keys().await.map(drop),
            Case::HoldToCheckpoint => match service.require_checkpoint(&self.note).await {
                Ok(()) => Ok(()),
                Err(CheckpointRefusal::Unavailable(error)) => Err(error),
                Err(other) => panic!("{other:?}"),
            },
            other => panic!("{other:?} changes something"),
        }
    }
}
