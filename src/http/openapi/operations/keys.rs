//! The life of keys.

use axum::http::{Method, StatusCode};

use super::KEYS;
use crate::domain::ids::{KeyAlias, KeyRef};
use crate::http::dto::{
    ArchivedAnswer, GeneratedAnswer, KeyAnswer, KeyListAnswer, KeyStepBody, ListKeysQuery,
    ListVersionsQuery, RevokeKeyBody, RevokedAnswer, RotateKeyBody, RotatedAnswer, ScopeQuery,
    UpdatedAnswer, VersionsAnswer, generate_key_body, update_key_body,
};
use crate::http::openapi::describe::{Described, Schemas};
use crate::http::openapi::failures;
use crate::http::openapi::operation::Operation;

/// How a path names a key: its parameter, and what that is.
type Name = (&'static str, &'static str);

const BY_REFERENCE: Name = (
    "key_id",
    "The key: its id, or `alias/<name>` with the slash as `%2F`.",
);
const BY_ALIAS: Name = (
    "alias",
    "The alias without `alias/`: it stands for the active key that bears it.",
);

pub(super) fn operations() -> Vec<Operation> {
    let mut operations = vec![
        Operation::new::<GeneratedAnswer>(
            KEYS,
            Method::POST,
            "/kms/v1/keys",
            "generateKey",
            "Makes a key",
        )
        .about("A secret never leaves the service; of a pair the public half is answered.")
        .answers_with(StatusCode::CREATED)
        .body(generate_key_body)
        .scoped()
        .approvable()
        .fails(failures::of_a_new_key()),
        Operation::new::<KeyListAnswer>(
            KEYS,
            Method::GET,
            "/kms/v1/keys",
            "listKeys",
            "Lists the keys of a scope",
        )
        .about("By id, which is by age, in pages.")
        .query::<ListKeysQuery>()
        .scoped(),
        key::<ArchivedAnswer, KeyRef>(
            Method::POST,
            "/kms/v1/keys/{key_id}/restore",
            BY_REFERENCE,
            "restoreKey",
            "Takes a revocation back",
        )
        .about("The key comes back as `archived`, as long as its secret is there (`erase_at`).")
        .body(Schemas::asked::<KeyStepBody>)
        .scoped()
        .approvable()
        .fails(failures::of_a_step()),
    ];
    operations.extend(of_one_key::<KeyRef>(
        BY_REFERENCE,
        [
            "/kms/v1/keys/{key_id}",
            "/kms/v1/keys/{key_id}/versions",
            "/kms/v1/keys/{key_id}/rotate",
            "/kms/v1/keys/{key_id}/revoke",
            "/kms/v1/keys/{key_id}/archive",
        ],
        [
            "getKey",
            "listKeyVersions",
            "rotateKey",
            "revokeKey",
            "archiveKey",
            "updateKey",
        ],
    ));
    operations.extend(of_one_key::<KeyAlias>(
        BY_ALIAS,
        [
            "/kms/v1/keys/alias/{alias}",
            "/kms/v1/keys/alias/{alias}/versions",
            "/kms/v1/keys/alias/{alias}/rotate",
            "/kms/v1/keys/alias/{alias}/revoke",
            "/kms/v1/keys/alias/{alias}/archive",
        ],
        [
            "getKeyByAlias",
            "listKeyVersionsByAlias",
            "rotateKeyByAlias",
            "revokeKeyByAlias",
            "archiveKeyByAlias",
            "updateKeyByAlias",
        ],
    ));
    operations
}

/// What there is to one key, however its path names it.
fn of_one_key<K: Described>(
    name: Name,
    [itself, versions, rotate, revoke, archive]: [&'static str; 5],
    [get, list, rotates, revokes, archives, updates]: [&'static str; 6],
) -> Vec<Operation> {
    vec![
        key::<KeyAnswer, K>(Method::GET, itself, name, get, "Shows a key")
            .about("Its metadata, and how much it is used. It reaches no key, so it leaves no receipt.")
            .query::<ScopeQuery>()
            .scoped()
            .fails(failures::of_a_key()),
        key::<VersionsAnswer, K>(Method::GET, versions, name, list, "Lists a line of rotations")
            .about("The whole line from any of its keys, oldest first, in pages.")
            .query::<ListVersionsQuery>()
            .scoped()
            .fails(failures::of_a_key()),
        key::<RotatedAnswer, K>(Method::POST, rotate, name, rotates, "Replaces a key")
            .about("A new key of the same type, usage, policy and alias takes its place. The old one verifies and decrypts: in its grace period, and as an archived key afterwards; with `emergency` it is archived at once.")
            .body(Schemas::asked::<RotateKeyBody>)
            .scoped()
            .approvable()
            .fails(failures::of_a_step()),
        key::<RevokedAnswer, K>(Method::POST, revoke, name, revokes, "Revokes a key")
            .about("Every use of it stops at once. The secret of a compromised key goes at once too, any other after a while (`erase_at`).")
            .body(Schemas::asked::<RevokeKeyBody>)
            .scoped()
            .approvable()
            .fails(failures::of_a_step()),
        key::<ArchivedAnswer, K>(Method::POST, archive, name, archives, "Archives a key")
            .about("From here on it only verifies and decrypts.")
            .body(Schemas::asked::<KeyStepBody>)
            .scoped()
            .approvable()
            .fails(failures::of_a_step()),
        key::<UpdatedAnswer, K>(Method::PATCH, itself, name, updates, "Changes a key's alias or policy")
            .about("What is not named stays as it is; `null` as `key_alias` takes the alias away.")
            .body(update_key_body)
            .scoped()
            .approvable()
            .fails(failures::of_a_step()),
    ]
}

fn key<A: Described, K: Described>(
    method: Method,
    path: &'static str,
    (name, about): Name,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    Operation::new::<A>(KEYS, method, path, id, summary).in_path::<K>(name, about)
}
