//! Clients of identity and access management (M21).

mod development;

pub use development::DevelopmentIam;
