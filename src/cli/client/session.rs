//! One command's conversation with the service: requests in a scope, and what becomes
//! of a refusal.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::connection::{Connection, options, secret};
use super::shown::malformed;
use crate::adapters::remote::{
    Patience, Question, Refusal, RemoteFault, RemoteFaultKind, RemoteService, Repeat, Verb, escaped,
};
use crate::cli::fault::{Fault, with_causes};
use crate::config::{ClientSettings, Given, LARGEST_BODY};
use crate::domain::ids::{KeyRef, TenantId};
use crate::domain::scope::{Environment, Plane, Scope};
use crate::domain::secret::SecretBytes;

/// Where the API is, below a service's address.
const BASE: &str = "kms/v1/";

/// The longest answer that is read, in bytes: what the largest body leads to, and a
/// page of keys.
const LONGEST_ANSWER: usize = LARGEST_BODY + (1 << 20);

/// Room for the fields of a body beside its data, in bytes.
const ROOM_BESIDE_DATA: usize = 16 * 1024;

/// The scope as a request has it, and the request's own fields.
#[derive(Serialize)]
struct Body<'a, T> {
    tenant_id: &'a TenantId,
    environment: Environment,
    plane: Plane,
    #[serde(flatten)]
    fields: &'a T,
}

/// What the answer to a step in a key's life names.
#[derive(Deserialize)]
struct Step {
    key_id: Option<String>,
    new_key_id: Option<String>,
}

/// Who takes standard input, which only one can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StandardInput {
    /// The command's data.
    IsData,
    /// Nobody yet.
    IsFree,
}

impl StandardInput {
    /// Of a command whose data is in this file, or else comes in.
    pub(super) fn of(input: Option<&Path>) -> Self {
        match input {
            None => Self::IsData,
            Some(_) => Self::IsFree,
        }
    }
}

/// A service, in a scope.
pub(super) struct Session {
    service: RemoteService,
    scope: Scope,
    approval: Option<SecretBytes>,
    wait: Duration,
}

impl Session {
    /// Reads all that is needed to ask, and asks nothing yet.
    pub(super) fn open(connection: &Connection, input: StandardInput) -> Result<Self, Fault> {
        let settings = connection.settings()?;
        let is_taken_twice = input == StandardInput::IsData
            && matches!(settings.approval, Some(Given::StandardInput));
        if is_taken_twice {
            return Err(Fault::arguments(
                "--approval-file: standard input is the data already; name a file for one of them",
            ));
        }
        Self::with(settings)
    }

    fn with(settings: ClientSettings) -> Result<Self, Fault> {
        let approval = settings.approval.as_ref().map(secret).transpose()?;
        let service = RemoteService::new(&settings.url, &options(&settings)?)
            .map_err(|fault| unanswered(&fault, Effect::Nothing))?;
        Ok(Self {
            service,
            approval,
            wait: settings.wait,
            scope: settings.scope,
        })
    }

    /// Reads something of the scope, with these parameters.
    pub(super) fn get(&self, path: &str, more: &[(&str, &str)]) -> Result<SecretBytes, Fault> {
        let scope = [
            ("tenant_id", self.scope.tenant_id.as_str()),
            ("environment", self.scope.environment.as_str()),
            ("plane", self.scope.plane.as_str()),
        ];
        let query = [&scope[..], more].concat();
        let path = format!("{BASE}{path}");
        let question = Question {
            query: &query,
            ..Question::get(&path, LONGEST_ANSWER)
        };
        self.ask(&question, Effect::Nothing)
    }

    /// Uses a key: done twice it leaves one more receipt and one more use, and no other
    /// trace. `data_len` is about how long the fields are, in bytes.
    pub(super) fn use_key(
        &self,
        path: &str,
        fields: &impl Serialize,
        data_len: usize,
    ) -> Result<SecretBytes, Fault> {
        // An approval works once. The second try of a use that was kept would be refused
        // for it, and hide why the first came to nothing.
        let effect = match self.approval {
            None => Effect::Nothing,
            Some(_) => Effect::Approval,
        };
        self.post(path, fields, data_len, effect)
    }

    /// Takes a step in a key's life. What does not name a key is no answer to that,
    /// whatever its status.
    pub(super) fn change(&self, path: &str, fields: &impl Serialize) -> Result<SecretBytes, Fault> {
        let answer = self.post(path, fields, 0, Effect::KeyLife)?;
        match serde_json::from_slice(answer.expose()) {
            Ok(Step {
                key_id: Some(_), ..
            })
            | Ok(Step {
                new_key_id: Some(_),
                ..
            }) => Ok(answer),
            _ => Err(Fault::failed(format_args!(
                "{}{NOT_KNOWN}",
                malformed("step in a key's life")
            ))),
        }
    }

    fn post(
        &self,
        path: &str,
        fields: &impl Serialize,
        data_len: usize,
        effect: Effect,
    ) -> Result<SecretBytes, Fault> {
        let body = self.body(fields, data_len)?;
        let path = format!("{BASE}{path}");
        let question = Question {
            verb: Verb::Post,
            body: Some(&body),
            approval: self.approval.as_ref(),
            repeat: match effect {
                Effect::Nothing => Repeat::Harmless,
                Effect::Approval | Effect::KeyLife => Repeat::OnlyUntouched,
            },
            ..Question::get(&path, LONGEST_ANSWER)
        };
        self.ask(&question, effect)
    }

    /// The body, in one piece, since growing would leave copies behind.
    fn body(&self, fields: &impl Serialize, data_len: usize) -> Result<SecretBytes, Fault> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(data_len + ROOM_BESIDE_DATA));
        let body = Body {
            tenant_id: &self.scope.tenant_id,
            environment: self.scope.environment,
            plane: self.scope.plane,
            fields,
        };
        serde_json::to_writer(&mut *bytes, &body).map_err(|error| Fault::caused(&error))?;
        if bytes.len() > LARGEST_BODY {
            return Err(Fault::failed(format_args!(
                "the request would be {} bytes long, and no service takes more than {LARGEST_BODY}",
                bytes.len()
            )));
        }
        Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
    }

    fn ask(&self, question: &Question<'_>, effect: Effect) -> Result<SecretBytes, Fault> {
        let patience = Patience::new(u32::MAX, Duration::MAX, self.wait);
        let answer = self.service.ask(question, patience);
        answer
            .map_err(|fault| unanswered(&fault, effect))?
            .map_err(|refusal| refused(&refusal, effect))
    }
}

/// The path of a key's own address.
pub(super) fn key_path(key: &KeyRef) -> String {
    // Ids and aliases hold nothing that has to be encoded.
    format!("keys/{key}")
}

/// What a request leaves behind that is done twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing but a receipt and a count.
    Nothing,
    /// An approval that is spent.
    Approval,
    /// A change in a key's life.
    KeyLife,
}

/// What has to be known before it is tried again.
const NOT_KNOWN: &str = "\n  whether it was done is not known: look before you try again \
                         (kms key list, kms key show)";

/// An answer that says no.
fn refused(refusal: &Refusal, effect: Effect) -> Fault {
    let mut what = match &refusal.said {
        Some((code, message)) => format!("{code}: {message} ({})", refusal.status),
        None => format!("the service answers {}", refusal.status),
    };
    for field in &refusal.fields {
        what.push_str(&format!("\n  field {field}"));
    }
    if let Some(limit) = refusal.limit_bytes {
        what.push_str(&format!(
            "\n  limit: {limit} bytes a request; data goes in base64, which is a third longer"
        ));
    }
    if let Some(successor) = &refusal.successor_key_id {
        what.push_str(&format!("\n  successor: {successor}"));
    }
    if let Some(request_id) = &refusal.request_id {
        what.push_str(&format!("\n  request id: {request_id}"));
    }
    if let Some(rest) = refusal.retry_after.filter(|_| refusal.may_answer_later()) {
        what.push_str(&format!(
            "\n  the service asks for {} s of patience",
            rest.as_secs()
        ));
    }
    // Nobody is told to come again who may have been served.
    let is_unknown =
        effect == Effect::KeyLife && refusal.status >= 500 && !Repeat::OnlyUntouched.after(refusal);
    if is_unknown {
        what.push_str(NOT_KNOWN);
        return Fault::failed(what);
    }
    match refusal.status {
        429 | 503 => Fault::away(what),
        400..500 => Fault::refused(what),
        _ => Fault::failed(what),
    }
}

/// No answer.
fn unanswered(fault: &RemoteFault, effect: Effect) -> Fault {
    let said = escaped(&with_causes(fault));
    match fault.kind {
        RemoteFaultKind::Address => Fault::arguments(format_args!("url: {said}")),
        RemoteFaultKind::Away => Fault::away(said),
        // Again later would be another deed.
        RemoteFaultKind::Lost if effect == Effect::KeyLife => {
            Fault::failed(format_args!("{said}{NOT_KNOWN}"))
        }
        RemoteFaultKind::Lost if effect == Effect::Approval => Fault::failed(format_args!(
            "{said}\n  whether it was done, and the approval spent, is not known"
        )),
        RemoteFaultKind::Lost => Fault::away(said),
        RemoteFaultKind::HandshakeRefused => Fault::refused(format_args!(
            "{said}: the service does not take this client's certificate, or misses one \
             (--cert, --key)"
        )),
        RemoteFaultKind::NotTrusted => Fault::failed(format_args!(
            "{said}: the service's certificate is not of an authority that is trusted here \
             (--cacert), or not for this address"
        )),
        RemoteFaultKind::OtherProtocol => Fault::failed(format_args!(
            "{said}: what is spoken there is not what url says: https in place of http, or the \
             other way round?"
        )),
        RemoteFaultKind::Options => Fault::arguments(said),
        RemoteFaultKind::Malformed if effect == Effect::KeyLife => {
            Fault::failed(format_args!("{said}{NOT_KNOWN}"))
        }
        RemoteFaultKind::Malformed => Fault::failed(said),
    }
}
