//! A client that asks for everything in random turn, holds each answer to what it
//! knew when it asked, and writes down what was acknowledged.

mod changes;
mod reads;

use std::sync::{Mutex, MutexGuard};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::book::{About, Answered, Asked, Book, KnownReceipt, Sealed, Signed, State};
use crate::support::{Answer, KmsProcess, Random, base64, in_scope, unbase64};

pub(super) use self::reads::receipt_text;

pub(super) struct Client<'a> {
    pub(super) number: usize,
    pub(super) kms: &'a KmsProcess,
    pub(super) book: &'a Mutex<Book>,
    pub(super) random: Random,
}

/// What came back.
pub(super) struct Reply {
    status: u16,
    body: Value,
    text: String,
    request_id: String,
}

impl Reply {
    fn code(&self) -> Option<&str> {
        self.body["error"]["code"].as_str()
    }

    #[track_caller]
    fn unexpected(&self) -> ! {
        panic!("an answer that cannot be: {} {}", self.status, self.text)
    }
}

impl Client<'_> {
    /// Asks until the process is gone.
    pub(super) async fn ask_on(mut self) {
        while self.step().await.is_some() {}
    }

    /// One request; `None` once the process is gone.
    async fn step(&mut self) -> Option<()> {
        match self.random.below(100) {
            0..7 => self.generate().await,
            7..32 => self.sign_something().await,
            32..41 => self.verify().await,
            41..51 => self.encrypt_something().await,
            51..60 => self.decrypt().await,
            60..64 => self.rotate().await,
            64..68 => self.revoke().await,
            68..75 => self.be_refused().await,
            75..80 => self.change_anchors().await,
            80..85 => self.look_at_keys().await,
            85..95 => self.read_receipt().await,
            _ => self.read_checkpoint().await,
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic")
    }

    fn post(&self, path: &str, fields: Value) -> RequestBuilder {
        self.kms.request(Method::POST, path).json(&in_scope(fields))
    }

    async fn send(&self, request: RequestBuilder) -> Option<Reply> {
        let answer = Answer::attempt(request).await?;
        let request_id = answer.headers.get("x-request-id").expect("a header");
        Some(Reply {
            status: answer.status.as_u16(),
            request_id: request_id.to_str().expect("text").to_owned(),
            body: answer.body,
            text: answer.text,
        })
    }

    /// Asks for something that leaves a receipt, and writes down what came of it.
    async fn ask(
        &self,
        operation: &'static str,
        subject: Option<&str>,
        request: RequestBuilder,
    ) -> Option<Reply> {
        let place = {
            let mut book = self.book();
            book.asked.push(Asked {
                client: self.number,
                about: About {
                    operation,
                    subject: subject.map(str::to_owned),
                },
                answered: None,
            });
            book.totals.unanswered += 1;
            book.asked.len() - 1
        };
        let reply = self.send(request).await?;
        let mut book = self.book();
        book.totals.unanswered -= 1;
        if reply.status == 503 {
            // Kept or not: nobody knows.
            book.totals.unavailable += 1;
            return Some(reply);
        }
        if reply.status == 500 {
            reply.unexpected();
        }
        book.totals.acknowledged += 1;
        let receipt_id = reply.body["receipt_id"].as_str().map(str::to_owned);
        if let Some(receipt_id) = &receipt_id {
            book.receipts.push(KnownReceipt {
                receipt_id: receipt_id.clone(),
                text: None,
            });
        }
        let made = match operation {
            "generate" => reply.body["key_id"].as_str(),
            "trust_anchor_add" => reply.body["trust_anchor_id"].as_str(),
            _ => subject,
        };
        book.asked[place].answered = Some(Answered {
            request_id: reply.request_id.clone(),
            subject: made.map(str::to_owned),
            receipt_id,
            success: reply.status < 300 && reply.body["valid"] != false,
            code: reply.code().map(str::to_owned),
        });
        drop(book);
        Some(reply)
    }

    async fn sign_something(&mut self) -> Option<()> {
        let key_id =
            self.pick(|key_type, state| key_type != "AES-256" && state <= State::PendingRotation);
        match key_id {
            Some(key_id) => self.sign(&key_id).await,
            None => self.generate().await,
        }
    }

    /// Signs with this key.
    pub(super) async fn sign(&mut self, key_id: &str) -> Option<()> {
        let data = self.random.bytes(40);
        let fields = json!({ "key_id": key_id, "data": base64(&data) });
        let request = self.post("/kms/v1/sign", fields);
        let Some((before, signed)) = self.use_key("sign", key_id, request).await? else {
            return Some(());
        };
        assert_eq!(before, State::Active, "{key_id} signed: {}", signed.text);
        let signed = Signed {
            key_id: key_id.to_owned(),
            data,
            signature: signed.body["signature"].clone(),
        };
        let book = self.book;
        let mut book = book.lock().expect("no panic");
        book.remember_signed(&mut self.random, signed);
        Some(())
    }

    async fn verify(&mut self) -> Option<()> {
        let is_good = self.random.percent(60);
        let (key_id, data, signature) = {
            let book = self.book.lock().expect("no panic");
            match self.random.pick(&book.signed) {
                Some(known) if is_good => (
                    known.key_id.clone(),
                    known.data.clone(),
                    known.signature.clone(),
                ),
                Some(known) => (
                    known.key_id.clone(),
                    b"other".to_vec(),
                    known.signature.clone(),
                ),
                None => return Some(()),
            }
        };
        let fields = json!({
            "key_id": key_id, "data": base64(&data), "signature": signature,
        });
        let request = self.post("/kms/v1/verify", fields);
        if let Some((_, verified)) = self.use_key("verify", &key_id, request).await? {
            assert_eq!(verified.body["valid"], is_good, "{}", verified.text);
        }
        Some(())
    }

    async fn encrypt_something(&mut self) -> Option<()> {
        let key_id = self.pick(|key_type, state| key_type == "AES-256" && state == State::Active);
        match key_id {
            Some(key_id) => self.encrypt(&key_id).await,
            None => self.generate().await,
        }
    }

    /// Encrypts with this key.
    pub(super) async fn encrypt(&mut self, key_id: &str) -> Option<()> {
        let plaintext = self.random.bytes(40);
        let algorithm = match self.random.percent(50) {
            true => "AES-256-GCM",
            false => "ChaCha20-Poly1305",
        };
        let fields = json!({
            "key_id": key_id, "plaintext": base64(&plaintext), "algorithm": algorithm,
        });
        let request = self.post("/kms/v1/encrypt", fields);
        let Some((before, sealed)) = self.use_key("encrypt", key_id, request).await? else {
            return Some(());
        };
        assert_eq!(before, State::Active, "{key_id} encrypted: {}", sealed.text);
        let sealed = Sealed {
            key_id: key_id.to_owned(),
            plaintext,
            answer: sealed.body,
        };
        let book = self.book;
        let mut book = book.lock().expect("no panic");
        book.remember_sealed(&mut self.random, sealed);
        Some(())
    }

    async fn decrypt(&mut self) -> Option<()> {
        let (key_id, answer, plaintext) = {
            let book = self.book.lock().expect("no panic");
            match self.random.pick(&book.sealed) {
                Some(known) => (
                    known.key_id.clone(),
                    known.answer.clone(),
                    known.plaintext.clone(),
                ),
                None => return Some(()),
            }
        };
        let is_good = self.random.percent(75);
        self.open(&key_id, &answer, &plaintext, is_good).await
    }

    /// Decrypts what was encrypted, or something that does not open.
    pub(super) async fn open(
        &mut self,
        key_id: &str,
        answer: &Value,
        plaintext: &[u8],
        is_good: bool,
    ) -> Option<()> {
        let mut ciphertext = unbase64(&answer["ciphertext"]);
        if !is_good {
            ciphertext[0] ^= 1;
        }
        let fields = json!({
            "key_id": key_id, "ciphertext": base64(ciphertext),
            "iv": answer["iv"], "algorithm": answer["algorithm"],
        });
        let request = self.post("/kms/v1/decrypt", fields);
        if let Some((_, opened)) = self.use_key("decrypt", key_id, request).await? {
            match is_good {
                true => assert_eq!(opened.body["plaintext"], base64(plaintext)),
                false => assert_eq!(opened.code(), Some("INVALID_REQUEST"), "{}", opened.text),
            }
        }
        Some(())
    }

    /// Uses a key. Gives the answer of a use that was let through, and the state
    /// that was acknowledged before it was asked for; a refusal is held to what
    /// anybody has asked for by then.
    async fn use_key(
        &self,
        operation: &'static str,
        key_id: &str,
        request: RequestBuilder,
    ) -> Option<Option<(State, Reply)>> {
        let before = self.book().key(key_id).state;
        let used = self.ask(operation, Some(key_id), request).await?;
        match (used.status, used.code()) {
            (200, _) | (400, Some("INVALID_REQUEST")) => {
                assert_ne!(
                    before,
                    State::Destroyed,
                    "a revoked key was used: {}",
                    used.text
                );
                return Some(Some((before, used)));
            }
            (409, Some("KEY_REVOKED")) if self.book().key(key_id).revocation_asked => {}
            (409, Some("KEY_INACTIVE"))
                if self.book().key(key_id).rotation_asked
                    && matches!(operation, "sign" | "encrypt") => {}
            (503, _) => {}
            _ => used.unexpected(),
        }
        Some(None)
    }

    fn pick(&mut self, is_wanted: impl Fn(&str, State) -> bool) -> Option<String> {
        let book = self.book.lock().expect("no panic");
        book.pick_key(&mut self.random, |key| is_wanted(&key.key_type, key.state))
    }
}
