//! What every HSM backend must do, written once against the port and run for
//! each backend, beside what only one backend can be asked.

#[path = "hsm_conformance/batches.rs"]
mod batches;
#[path = "hsm_conformance/harness.rs"]
mod harness;
#[path = "hsm_conformance/other_implementations.rs"]
mod other_implementations;
#[path = "hsm_conformance/published_vectors.rs"]
mod published_vectors;
#[path = "hsm_conformance/software.rs"]
mod software;
#[path = "hsm_conformance/suite.rs"]
mod suite;
#[path = "hsm_conformance/token.rs"]
mod token;
#[path = "hsm_conformance/token_load.rs"]
mod token_load;
#[path = "hsm_conformance/token_objects.rs"]
mod token_objects;
#[path = "hsm_conformance/token_vectors.rs"]
mod token_vectors;

/// Runs the whole suite for the backend that `$backend` makes. Whatever the
/// expression gives back lives as long as each test, a folder or a token included.
macro_rules! conforms {
    ($backend:expr => $($module:ident::$promise:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let backend = $backend;
                super::$module::$promise(&backend.hsm).await;
            }
        )+
    };
    ($backend:expr) => {
        conforms!($backend =>
            suite::every_type_and_algorithm_makes_a_round_trip,
            suite::only_pairs_have_a_public_key,
            suite::long_messages_make_the_same_round_trip,
            suite::a_signature_of_anything_else_is_not_valid,
            suite::a_malformed_signature_is_a_wrong_one,
            suite::what_was_altered_does_not_decrypt,
            suite::a_ciphertext_of_another_key_or_algorithm_does_not_decrypt,
            suite::every_encryption_has_its_own_nonce,
            suite::an_erased_key_stays_unusable,
            suite::a_handle_of_another_scope_is_refused,
            suite::a_discarded_key_is_no_error,
            suite::a_key_that_was_never_made_is_a_fault,
            suite::the_self_test_passes,
            batches::a_batch_signs_and_verifies_each_in_its_place,
            batches::a_batch_encrypts_and_decrypts_each_in_its_place,
            batches::a_batch_of_an_erased_key_comes_to_nothing,
            other_implementations::rsa_signatures_are_valid_elsewhere,
            other_implementations::rsa_signatures_made_elsewhere_are_valid_here,
            other_implementations::ed25519_signatures_are_valid_elsewhere,
            other_implementations::ed25519_signatures_made_elsewhere_are_valid_here,
            published_vectors::rsa_pss_passes_the_published_cases,
            published_vectors::rsa_pkcs1v15_passes_the_published_cases,
            published_vectors::ed25519_passes_the_published_cases,
        );
    };
}

mod software_hsm {
    conforms!(super::software::SoftwareBackend::new());
}

mod token_behind_pkcs11 {
    conforms!(super::token::TokenBackend::new().await);
}
