//! What a service says of a failure, in its own code and words.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// An answer that is not 2xx. All text in it is escaped, since it may be anybody's and
/// goes to a terminal.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The public code, such as `KEY_NOT_FOUND`, and what the service says; `None` where
    /// the answer has no such envelope.
    pub said: Option<(String, String)>,
    /// Each field that was wrong, with what was expected.
    pub fields: Vec<String>,
    /// What is away, for 503.
    pub dependency: Option<String>,
    /// The largest body that is taken, in bytes, for 413.
    pub limit_bytes: Option<u64>,
    /// The key that took the place of one that is not active.
    pub successor_key_id: Option<String>,
    /// What leads to the service's log lines.
    pub request_id: Option<String>,
    /// How long the service wants to be left alone.
    pub retry_after: Option<Duration>,
}

#[derive(Deserialize)]
struct Envelope {
    error: Failure,
}

#[derive(Deserialize)]
struct Failure {
    code: String,
    message: String,
    request_id: Option<String>,
    #[serde(default)]
    details: serde_json::Value,
}

impl Refusal {
    /// Reads the envelope, if there is one.
    pub(super) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let read = serde_json::from_slice(body).ok();
        let failure = read.map(|Envelope { error }| error);
        let details = failure.as_ref().map(|failure| &failure.details);
        let detail = |name: &str| details.and_then(|details| details.get(name));
        let text = |name: &str| detail(name)?.as_str().map(escaped);
        let errors = detail("errors").and_then(serde_json::Value::as_array);
        Self {
            status,
            fields: errors.into_iter().flatten().map(field).collect(),
            dependency: text("dependency"),
            limit_bytes: detail("limit_bytes").and_then(serde_json::Value::as_u64),
            successor_key_id: text("successor_key_id"),
            request_id: failure
                .as_ref()
                .and_then(|failure| failure.request_id.as_deref())
                .map(escaped),
            said: failure.map(|failure| (escaped(&failure.code), escaped(&failure.message))),
            retry_after,
        }
    }

    /// Whether the same request may be answered later.
    pub fn may_answer_later(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// Whether this is what is away.
    pub(super) fn is_of(&self, dependency: &str) -> bool {
        self.dependency.as_deref() == Some(dependency)
    }
}

/// `code, message`, or the status where there is no more to say.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Some((code, message)) => write!(f, "{code}, {message}"),
            None => write!(f, "status {}", self.status),
        }
    }
}

/// One entry of `details.errors`.
fn field(error: &serde_json::Value) -> String {
    let text = |name: &str| error.get(name).and_then(serde_json::Value::as_str);
    let name = text("field").unwrap_or("a field");
    let mut line = name.to_owned();
    if let Some(problem) = text("problem") {
        line.push_str(&format!(" ({problem})"));
    }
    for said in [text("expected"), text("reason")].into_iter().flatten() {
        line.push_str(&format!(": {said}"));
    }
    escaped(&line)
}

/// The text without anything that could steer a terminal, or look like other text: what
/// is not printable stands as an escape.
pub fn escaped(text: &str) -> String {
    let shown = |c: char| match c {
        '\'' | '"' => c.to_string(),
        other => other.escape_debug().to_string(),
    };
    text.chars().map(shown).collect()
}
