//! `server.*`: the listeners and what they take.
//!
//! It knows addresses and bounds, and nothing of HTTP.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use crate::domain::time::Period;

use super::reader::Reader;
use super::value::{Outcome, Parsed, Raw, address, bytes, list, period, quoted, whole};

/// The largest `server.max_body_bytes` there can be.
pub const LARGEST_BODY: usize = 64 << 20;

/// The listeners and their limits.
pub struct Server {
    /// The API's listener. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The operations listener; `None` is off.
    pub ops_listen: Option<SocketAddr>,
    /// The largest request body, in bytes.
    pub max_body_bytes: NonZeroUsize,
    /// How long a request may take from its head to its answer.
    pub request_timeout: Period,
    /// How many requests may be under way at once.
    pub max_in_flight: NonZeroUsize,
    /// How long requests under way get to finish when the service stops.
    pub shutdown_grace: Period,
    /// The web origins that may read answers.
    pub cors_origins: CorsOrigins,
}

/// Which web origins may read answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All of them (`*`).
    Any,
    /// These, possibly none; each as a browser sends it, such as `https://app.example.com`.
    Only(Vec<String>),
}

impl Server {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            listen: reader.take("server.listen", address),
            ops_listen: reader.take_optional("server.ops_listen", address),
            max_body_bytes: reader.take(
                "server.max_body_bytes",
                bytes(1 << 10..=LARGEST_BODY as u64),
            ),
            request_timeout: reader.take("server.request_timeout", period),
            max_in_flight: reader.take("server.max_in_flight", whole(1..=1_000_000)),
            shutdown_grace: reader.take("server.shutdown_grace", period),
            cors_origins: reader.take("server.cors_origins", cors_origins),
        }
    }
}

fn cors_origins(raw: &Raw) -> Outcome<CorsOrigins> {
    let Parsed { value, shown } = list(origin)(raw)?;
    let value = match value.as_slice() {
        [only] if only == "*" => CorsOrigins::Any,
        // A list with `*` in it would read as a restriction and be none.
        origins if origins.iter().any(|origin| origin == "*") => {
            return Err("expected * alone, or origins without it".to_owned());
        }
        _ => CorsOrigins::Only(value),
    };
    Ok(Parsed { value, shown })
}

/// `scheme://host` or `scheme://host:port`: a path or a trailing slash would
/// never match what a browser sends.
fn origin(raw: &Raw) -> Outcome<String> {
    let text = raw.text().unwrap_or_default();
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        let in_scheme = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c);
        let in_host = |c: u8| c.is_ascii_graphic() && !b"/?#@\\,\"".contains(&c);
        !scheme.is_empty()
            && scheme.bytes().all(in_scheme)
            && !host.is_empty()
            && host.bytes().all(in_host)
    });
    if text == "*" || is_origin {
        Ok(Parsed {
            value: text.to_owned(),
            shown: quoted(text),
        })
    } else {
        Err(
            "expected an origin without a path, such as https://app.example.com, or * for all"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CorsOrigins, String> {
        cors_origins(&Raw::Variable(text.to_owned())).map(|parsed| parsed.value)
    }

    #[test]
    fn origins_are_all_or_some_or_none() {
        assert_eq!(read("*"), Ok(CorsOrigins::Any));
        assert_eq!(read(""), Ok(CorsOrigins::Only(Vec::new())));
        assert_eq!(
            read("https://a.example, http://localhost:3000"),
            Ok(CorsOrigins::Only(vec![
                "https://a.example".to_owned(),
                "http://localhost:3000".to_owned()
            ]))
        );
    }

    #[test]
    fn a_star_among_origins_is_refused() {
        assert!(read("https://a.example,*").is_err());
    }

    #[test]
    fn what_no_browser_sends_as_an_origin_is_refused() {
        for text in [
            "app.example.com",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://user@a.example",
            "https://ä.example",
            "https://a b",
            "://a",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
