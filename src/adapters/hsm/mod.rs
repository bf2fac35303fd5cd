//! The HSM backends, and what they share: public keys, which every backend
//! checks signatures with in software.

mod nonce;
mod pace;
pub mod pkcs11;
pub mod public_key;
pub mod software;
