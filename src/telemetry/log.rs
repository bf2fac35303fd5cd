//! Logs: one JSON line an event, or readable lines in development.
//!
//! Lines go to standard output through a thread of their own (`lines.rs`), so that a
//! reader that stalls never stalls a request.
//! No body, token, certificate or key is ever given to this room.

mod lines;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::lines::Lines;

pub use self::lines::LogGuard;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What every line says of the service.
#[derive(Clone, Debug)]
pub struct ServiceIdentity {
    /// The version.
    pub version: &'static str,
    /// The deployment environment.
    pub environment: String,
    /// The host's name.
    pub host: String,
}

/// Starts logging for the whole process. The guard flushes when it is dropped.
///
/// Our own events are kept down to `level`; those of libraries at `info` and
/// above only, since what they say further down is not ours to vouch for.
pub fn start(format: LogFormat, level: LevelFilter, service: ServiceIdentity) -> LogGuard {
    let (writer, guard) = Lines::to(standard_output());
    let targets = Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Json => registry
            .with(
                layer
                    .event_format(JsonLine::new(&service))
                    .with_filter(targets),
            )
            .try_init(),
        LogFormat::Text => registry
            .with(layer.event_format(TextLine).with_filter(targets))
            .try_init(),
    }
    // A second start in one process keeps the first subscriber: there is one log.
    .unwrap_or_default();
    guard
}

/// Standard output without the standard library's buffer, which would write a line
/// at a time.
fn standard_output() -> Box<dyn io::Write + Send> {
    match io::stdout().as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(File::from(descriptor)),
        Err(_) => Box::new(io::stdout()),
    }
}

/// `{"time": …, "level": …, "message": …, …}`
struct JsonLine {
    /// The fields that never change, written once.
    service: String,
}

impl JsonLine {
    fn new(service: &ServiceIdentity) -> Self {
        let mut text = String::from(",\"service\":\"kms\"");
        push_string(&mut text, "version", service.version);
        push_string(&mut text, "environment", &service.environment);
        push_string(&mut text, "host", &service.host);
        Self { service: text }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(512);
        let _ = write!(line, "{{\"time\":\"{}\"", now());
        push_string(&mut line, "level", level_name(*event.metadata().level()));
        line.push_str(&self.service);
        push_string(&mut line, "target", event.metadata().target());
        event.record(&mut JsonFields(&mut line));
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

struct JsonFields<'a>(&'a mut String);

impl JsonFields<'_> {
    /// A text, unless every line has it: an object with a name in it twice is one
    /// that strict readers refuse (RFC 8259 §4).
    fn push(&mut self, field: &Field, value: &str) {
        if !is_on_every_line(field) {
            push_string(self.0, field.name(), value);
        }
    }
}

fn is_on_every_line(field: &Field) -> bool {
    ["version", "environment", "host"].contains(&field.name())
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let _ = write!(self.0, ",\"{}\":{value}", field.name());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.0, ",\"{}\":{value}", field.name());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let _ = write!(self.0, ",\"{}\":{value}", field.name());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            let _ = write!(self.0, ",\"{}\":{value}", field.name());
        } else {
            self.push(field, &value.to_string());
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, &chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !is_on_every_line(field) {
            push_name(self.0, field.name());
            self.0.push('"');
            // A text that does not show itself is cut off where it fails.
            let _ = write!(InJson(self.0), "{value:?}");
            self.0.push('"');
        }
    }
}

/// `2026-01-01T00:00:00Z INFO message key=value …`
struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = TextFields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        let TextFields { message, rest } = fields;
        let mut line = String::with_capacity(512);
        let _ = writeln!(line, "{} {level:5} {message}{rest}", now());
        writer.write_str(&line)
    }
}

#[derive(Default)]
struct TextFields {
    message: String,
    rest: String,
}

impl TextFields {
    /// Where a field's value goes, its name written.
    fn value_of(&mut self, field: &Field) -> InText<'_> {
        if field.name() == "message" {
            InText(&mut self.message)
        } else {
            self.rest.push(' ');
            self.rest.push_str(field.name());
            self.rest.push('=');
            InText(&mut self.rest)
        }
    }
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = self.value_of(field).write_str(value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.value_of(field), "{value:?}");
    }
}

/// Writes a value into a line for people.
struct InText<'a>(&'a mut String);

impl fmt::Write for InText<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        if value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            self.0.push_str(value);
            return Ok(());
        }
        for character in value.chars() {
            // A line break in a value must not look like a line of its own, nor
            // an escape sequence reach somebody's terminal.
            if character.is_control() {
                write!(self.0, "{}", character.escape_default())?;
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

/// Writes a value, or a piece of one, into a JSON text.
struct InJson<'a>(&'a mut String);

impl fmt::Write for InJson<'_> {
    fn write_str(&mut self, value: &str) -> fmt::Result {
        let needs_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        if !value.bytes().any(needs_escape) {
            self.0.push_str(value);
            return Ok(());
        }
        let quoted = serde_json::to_string(value).map_err(|_| fmt::Error)?;
        self.0.push_str(&quoted[1..quoted.len() - 1]);
        Ok(())
    }
}

/// An error and everything that caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}

fn push_name(line: &mut String, name: &str) {
    line.push_str(",\"");
    line.push_str(name);
    line.push_str("\":");
}

fn push_string(line: &mut String, name: &str, value: &str) {
    push_name(line, name);
    line.push('"');
    let _ = InJson(line).write_str(value);
    line.push('"');
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a log line tells when it was written, whatever clock the service runs on"
)]
fn now() -> crate::domain::time::Timestamp {
    jiff::Timestamp::now().into()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    fn log_something() {
        let error = Outer(io::Error::other("inner\nsecond line"));
        tracing::info!(
            status = 200u64,
            tenant = "a\"b",
            error = &error as &dyn std::error::Error,
            "request.end"
        );
    }

    #[test]
    fn a_json_line_is_one_line_of_json_with_the_service_in_it() {
        let captured = Captured::default();
        let service = ServiceIdentity {
            version: "1.2.3",
            environment: "staging".to_owned(),
            host: "h".to_owned(),
        };
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(captured.clone())
            .event_format(JsonLine::new(&service));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, log_something);
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).expect("UTF-8");
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["message"], "request.end");
        assert_eq!(line["level"], "info");
        assert_eq!(line["service"], "kms");
        assert_eq!(line["version"], "1.2.3");
        assert_eq!(line["environment"], "staging");
        assert_eq!(line["host"], "h");
        assert_eq!(line["status"], 200);
        assert_eq!(line["tenant"], "a\"b");
        assert_eq!(line["error"], "outer: inner\nsecond line");
        assert!(
            line["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
    }

    #[test]
    fn a_text_line_stays_one_line_whatever_a_value_holds() {
        let captured = Captured::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(captured.clone())
            .event_format(TextLine);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, log_something);
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).expect("UTF-8");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("request.end status=200"), "{text}");
    }
}
