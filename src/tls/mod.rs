//! TLS of the API listener: who may connect, by which certificate (RFC 8446,
//! RFC 5280).
//!
//! The only room that speaks TLS. It turns a socket into bytes and a
//! [`PeerIdentity`], and knows nothing of HTTP.
//!
//! - [`TlsMaterial`] is what the operator lays out, in three units that are
//!   renewed one by one.
//! - [`Acceptor`] makes one handshake after another with what is in force then.
//! - [`answers_tls`] asks, as a client, whether anybody speaks it.
//! - [`Refusal`] is the closed list of reasons for which it does not.
//!
//! [`PeerIdentity`]: crate::domain::peer::PeerIdentity

mod acceptor;
mod answer;
mod authorities;
mod certificate;
mod chain;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod material;
mod refusal;
mod refusal_log;
mod renewable;
mod revocation;
mod server_identity;
#[cfg(test)]
mod testing;
mod verifier;

pub use acceptor::{Acceptor, Admitted};
pub use answer::answers_tls;
pub use material::{TlsFiles, TlsMaterial};
pub use refusal::Refusal;
