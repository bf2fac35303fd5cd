//! Bodies and query strings from whoever may send them.

use super::dto;
use super::fields::{WireObject, read_json, read_query};
use crate::domain::error::{KmsError, RequestFault};

type Reader = fn(&[u8]) -> Result<(), KmsError>;

fn body<T: WireObject>(bytes: &[u8]) -> Result<(), KmsError> {
    read_json::<T>(bytes).map(drop)
}

fn asked<T: WireObject>(bytes: &[u8]) -> Result<(), KmsError> {
    // What is no UTF-8 does not get this far: a URI is ASCII.
    match std::str::from_utf8(bytes) {
        Ok(query) => read_query::<T>(query).map(drop),
        Err(_) => Ok(()),
    }
}

const BODIES: &[Reader] = &[
    body::<dto::GenerateKeyBody>,
    body::<dto::RotateKeyBody>,
    body::<dto::RevokeKeyBody>,
    body::<dto::UpdateKeyBody>,
    body::<dto::KeyStepBody>,
    body::<dto::SignBody>,
    body::<dto::VerifyBody>,
    body::<dto::EncryptBody>,
    body::<dto::DecryptBody>,
    body::<dto::SignBatchBody>,
    body::<dto::VerifyBatchBody>,
    body::<dto::EncryptBatchBody>,
    body::<dto::DecryptBatchBody>,
    body::<dto::AddTrustAnchorBody>,
];

const QUERIES: &[Reader] = &[
    asked::<dto::ScopeQuery>,
    asked::<dto::ListKeysQuery>,
    asked::<dto::ListVersionsQuery>,
    asked::<dto::ListTrustAnchorsQuery>,
    asked::<dto::ListReceiptsQuery>,
];

/// A body; the first byte says which request it is of.
pub(crate) fn request(bytes: &[u8]) {
    read(BODIES, bytes);
}

/// A query string; the first byte says which request it is of.
pub(crate) fn query(bytes: &[u8]) {
    read(QUERIES, bytes);
}

/// It reads, or the answer names what is wrong.
fn read(readers: &[Reader], bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else {
        return;
    };
    let reader = readers[usize::from(*which) % readers.len()];
    match reader(bytes) {
        Ok(()) => {}
        Err(KmsError::InvalidRequest(RequestFault::Fields(faults))) => {
            assert!(!faults.is_empty(), "refused for nothing");
            for fault in faults {
                assert!(
                    fault.field.len() <= 300,
                    "{} is too long a name",
                    fault.field
                );
            }
        }
        Err(KmsError::InvalidRequest(_)) => {}
        Err(other) => panic!("not a fault of the request: {other:?}"),
    }
}
