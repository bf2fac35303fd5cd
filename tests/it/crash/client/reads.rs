//! Requests that read, and so leave no receipt.

use reqwest::Method;

use super::{Client, Reply};
use crate::crash::book::State;
use crate::support::SCOPE_QUERY;

impl Client<'_> {
    pub(super) async fn look_at_keys(&mut self) -> Option<()> {
        let Some(key_id) = self.pick(|_, _| true) else {
            return Some(());
        };
        if self.random.percent(30) {
            let path = format!("/kms/v1/keys?limit=50&{SCOPE_QUERY}");
            let listed = self.read(&path).await?;
            assert!(matches!(listed.status, 200 | 503), "{}", listed.text);
            return Some(());
        }
        let before = self.book().key(&key_id).state;
        let path = format!("/kms/v1/keys/{key_id}?{SCOPE_QUERY}");
        let shown = self.read(&path).await?;
        if shown.status != 503 {
            assert_eq!(shown.status, 200, "{}", shown.text);
            let state = State::named(&shown.body["key_state"]);
            let may_be = self.book().key(&key_id).may_be(state, before);
            assert!(may_be, "{before:?} was acknowledged: {}", shown.text);
        }
        Some(())
    }

    pub(super) async fn read_receipt(&mut self) -> Option<()> {
        let place = {
            let known = self.book().receipts.len();
            match known {
                0 => return Some(()),
                _ => known - 1 - self.random.below(known.min(200)),
            }
        };
        let receipt_id = self.book().receipts[place].receipt_id.clone();
        let path = format!("/kms/v1/receipts/{receipt_id}?{SCOPE_QUERY}");
        let found = self.read(&path).await?;
        if found.status == 503 {
            return Some(());
        }
        assert_eq!(found.status, 200, "{}", found.text);
        let text = receipt_text(&found.text);
        let mut book = self.book();
        book.checkpoints.push(
            found.body["checkpoint"]
                .as_str()
                .expect("a note")
                .to_owned(),
        );
        let known = &mut book.receipts[place].text;
        match known {
            Some(known) => assert_eq!(*known, text),
            None => *known = Some(text),
        }
        Some(())
    }

    pub(super) async fn read_checkpoint(&mut self) -> Option<()> {
        let note = self.read("/kms/v1/ledger/checkpoint").await?;
        if note.status == 200 {
            self.book().checkpoints.push(note.text);
        }
        Some(())
    }

    async fn read(&self, path: &str) -> Option<Reply> {
        let reply = self.send(self.kms.request(Method::GET, path)).await?;
        self.book().totals.reads += 1;
        Some(reply)
    }
}

/// The very bytes of the receipt in an answer.
pub(in crate::crash) fn receipt_text(answer: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        receipt: &'a serde_json::value::RawValue,
    }
    let envelope: Envelope<'_> = serde_json::from_str(answer).expect("a receipt");
    envelope.receipt.get().to_owned()
}
