//! Clients of the trust plane (M32).

mod x509;

pub use x509::X509TrustPlane;
