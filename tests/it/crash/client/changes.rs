//! Requests that change something, and those that are refused in any case.

use reqwest::Method;
use serde_json::json;

use super::Client;
use crate::crash::book::State;
use crate::support::{APPROVAL, SCOPE_QUERY, TestAuthority, UNKNOWN, base64, text};

impl Client<'_> {
    pub(super) async fn generate(&mut self) -> Option<()> {
        let key_type = match self.random.below(20) {
            0 => "RSA-2048",
            1..8 => "AES-256",
            _ => "Ed25519",
        };
        let usage = match key_type {
            "AES-256" => json!(["encrypt", "decrypt"]),
            _ => json!(["sign", "verify"]),
        };
        let mut fields = json!({
            "key_type": key_type, "key_usage": usage, "approval_token": APPROVAL,
        });
        if self.random.percent(20) {
            fields["key_alias"] = json!(format!("line-{}", self.random.number()));
        }
        let request = self.post("/kms/v1/keys", fields);
        let made = self.ask("generate", None, request).await?;
        match made.status {
            201 => {
                let (key_id, public_key) = (text(&made.body["key_id"]), &made.body["public_key"]);
                self.book().learn_key(key_id, key_type, public_key);
            }
            503 => {}
            _ => made.unexpected(),
        }
        Some(())
    }

    pub(super) async fn rotate(&mut self) -> Option<()> {
        let Some(key_id) = self.pick(|_, state| state == State::Active) else {
            return Some(());
        };
        let before = self.book().key(&key_id).state;
        self.book().key(&key_id).rotation_asked = true;
        let path = format!("/kms/v1/keys/{key_id}/rotate");
        let request = self.post(&path, json!({ "approval_token": APPROVAL }));
        let rotated = self.ask("rotate", Some(&key_id), request).await?;
        match (rotated.status, rotated.code()) {
            (200, _) => {
                assert_eq!(before, State::Active, "{}", rotated.text);
                let mut book = self.book();
                book.advance(&key_id, State::PendingRotation);
                let key_type = book.key(&key_id).key_type.clone();
                let (new_id, public_key) = (
                    text(&rotated.body["new_key_id"]),
                    &rotated.body["new_public_key"],
                );
                book.learn_key(new_id, &key_type, public_key);
            }
            (409, Some("KEY_INACTIVE" | "KEY_REVOKED")) | (503, _) => {}
            _ => rotated.unexpected(),
        }
        Some(())
    }

    pub(super) async fn revoke(&mut self) -> Option<()> {
        let Some(key_id) = self.pick(|_, state| state <= State::PendingRotation) else {
            return Some(());
        };
        let before = self.book().key(&key_id).state;
        self.book().key(&key_id).revocation_asked = true;
        let path = format!("/kms/v1/keys/{key_id}/revoke");
        let fields = json!({ "revocation_reason": "retired", "approval_token": APPROVAL });
        let request = self.post(&path, fields);
        let revoked = self.ask("revoke", Some(&key_id), request).await?;
        match (revoked.status, revoked.code()) {
            (200, _) => {
                assert_ne!(before, State::Destroyed, "{}", revoked.text);
                self.book().advance(&key_id, State::Destroyed);
            }
            (409, Some("KEY_REVOKED")) | (503, _) => {}
            _ => revoked.unexpected(),
        }
        Some(())
    }

    /// Asks for what is refused whatever the others do, with a receipt or without.
    pub(super) async fn be_refused(&mut self) -> Option<()> {
        let key_id = self.pick(|_, _| true);
        let revoked = self.pick(|_, state| state == State::Destroyed);
        match (self.random.below(5), key_id, revoked) {
            (0, Some(key_id), _) => {
                // Nobody approved it, or the key is past it: refused in any case.
                let path = format!("/kms/v1/keys/{key_id}/rotate");
                let request = self.post(&path, json!({}));
                let refused = self.ask("rotate", Some(&key_id), request).await?;
                assert!(
                    matches!(refused.status, 403 | 409 | 503),
                    "{}",
                    refused.text
                );
            }
            (1, _, Some(key_id)) => {
                let path = format!("/kms/v1/keys/{key_id}/revoke");
                let fields = json!({ "revocation_reason": "retired", "approval_token": APPROVAL });
                let request = self.post(&path, fields);
                let refused = self.ask("revoke", Some(&key_id), request).await?;
                assert!(matches!(refused.status, 409 | 503), "{}", refused.text);
            }
            (2, ..) => {
                let malformed = json!({ "key_id": "key-123", "data": "" });
                let refused = self.send(self.post("/kms/v1/sign", malformed)).await?;
                assert_eq!(refused.status, 400, "{}", refused.text);
            }
            (3, ..) => {
                let fields = json!({
                    "key_type": "Ed25519", "key_usage": "encrypt", "approval_token": APPROVAL,
                });
                let request = self.post("/kms/v1/keys", fields);
                let refused = self.ask("generate", None, request).await?;
                assert!(matches!(refused.status, 400 | 503), "{}", refused.text);
            }
            _ => {
                let fields = json!({ "key_id": UNKNOWN, "data": "" });
                let request = self.post("/kms/v1/sign", fields);
                let refused = self.ask("sign", Some(UNKNOWN), request).await?;
                assert!(matches!(refused.status, 404 | 503), "{}", refused.text);
            }
        }
        Some(())
    }

    pub(super) async fn change_anchors(&mut self) -> Option<()> {
        let known: Vec<String> = {
            let book = self.book();
            let there = book.anchors.iter().filter(|(_, known)| !known.is_removed);
            there.map(|(id, _)| id.clone()).collect()
        };
        match self.random.pick(&known).cloned() {
            Some(id) if self.random.percent(40) => self.remove_anchor(&id).await,
            _ => self.add_anchor().await,
        }
    }

    async fn add_anchor(&mut self) -> Option<()> {
        let name = format!("anchor {}", self.random.number());
        let certificate = base64(TestAuthority::new(&name).der());
        let fields = json!({ "certificate": certificate, "anchor_type": "root" });
        let request = self.post("/kms/v1/trust-anchors", fields);
        let added = self.ask("trust_anchor_add", None, request).await?;
        match added.status {
            201 => {
                let id = text(&added.body["trust_anchor_id"]).to_owned();
                self.book().anchors.entry(id).or_default();
            }
            503 => {}
            _ => added.unexpected(),
        }
        Some(())
    }

    async fn remove_anchor(&mut self, id: &str) -> Option<()> {
        let was_removed = {
            let mut book = self.book();
            let known = book.anchors.get_mut(id).expect("a known anchor");
            known.removal_asked = true;
            known.is_removed
        };
        let path = format!("/kms/v1/trust-anchors/{id}?{SCOPE_QUERY}");
        let request = self.kms.request(Method::DELETE, &path);
        let removed = self.ask("trust_anchor_remove", Some(id), request).await?;
        match removed.status {
            200 => {
                assert!(!was_removed, "{}", removed.text);
                let mut book = self.book();
                book.anchors.get_mut(id).expect("known").is_removed = true;
            }
            404 | 503 => {}
            _ => removed.unexpected(),
        }
        Some(())
    }
}
