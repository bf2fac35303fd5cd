//! W3C Trace Context: which trace a request belongs to
//! (<https://www.w3.org/TR/trace-context/>, `traceparent`).

use uuid::Uuid;

/// The trace of a request and this service's span in it, in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// 32 digits.
    pub trace_id: String,
    /// 16 digits.
    pub span_id: String,
}

impl TraceContext {
    /// A new span: in the caller's trace where `traceparent` is valid, else in a
    /// new one.
    pub fn continue_from(traceparent: Option<&str>) -> Self {
        let trace_id = traceparent
            .and_then(parse_trace_id)
            .map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned);
        let mut span_id = Uuid::new_v4().simple().to_string();
        span_id.truncate(16);
        Self { trace_id, span_id }
    }
}

/// The trace id of a `traceparent`: `version-trace-parent-flags`, all lower-case
/// hex, neither id all zeroes. Versions after 00 may append fields (§2.2.5).
fn parse_trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.trim().split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, digits: usize| {
        text.len() == digits
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let nonzero = |text: &str| text.bytes().any(|byte| byte != b'0');
    let well_formed = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && nonzero(trace)
        && hex(parent, 16)
        && nonzero(parent)
        && hex(flags, 2);
    well_formed.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_traceparent_is_continued_in_a_span_of_our_own() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = TraceContext::continue_from(Some(parent));
        assert_eq!(context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id.len(), 16);
        assert_ne!(context.span_id, "00f067aa0ba902b7");
    }

    #[test]
    fn a_malformed_traceparent_starts_a_new_trace() {
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-x\n-y-z",
        ] {
            assert_eq!(parse_trace_id(bad), None, "{bad}");
        }
        let context = TraceContext::continue_from(Some("nonsense"));
        assert_eq!(context.trace_id.len(), 32);
    }
}
