//! Requests that reach no operation, and so leave no receipt.

use serde_json::{Value, json};

use super::Planned;
use crate::model::world::{Who, World};
use crate::support::{APPROVAL, Random, SCOPE_QUERY, UNKNOWN, in_scope, with};

/// What is malformed, or asks for nothing there is, or comes from nobody.
pub(super) fn reach_nothing(world: &World, random: &mut Random) -> Planned {
    let id = random
        .pick(&world.keys)
        .map_or(UNKNOWN, |key| &key.id)
        .to_owned();
    let sign = json!({ "key_id": id, "data": "" });
    let malformed = |fields: Value| Planned::malformed("/kms/v1/sign", in_scope(fields));
    match random.below(13) {
        0 => malformed(json!({ "data": "" })),
        1 => malformed(with(sign, json!({ "dat": "" }))),
        2 => malformed(json!({ "key_id": "key-123", "data": "" })),
        3 => malformed(json!({ "key_id": id, "data": "!" })),
        4 => malformed(json!({ "key_id": id, "data": 1 })),
        5 => malformed(with(sign, json!({ "plane": "moon" }))),
        6 => malformed(with(sign, json!({ "algorithm": "AES-256-GCM" }))),
        7 => Planned {
            headers: vec![("x-approval-token", APPROVAL.to_owned())],
            ..malformed(with(sign, json!({ "approval_token": APPROVAL })))
        },
        8 => Planned {
            headers: vec![("content-type", "text/plain".to_owned())],
            status: 415,
            ..malformed(sign)
        },
        9 => Planned {
            status: 404,
            ..Planned::malformed("/kms/v1/signs", in_scope(sign))
        },
        10 => Planned::read(Who::Module, "/kms/v1/sign", 405),
        11 => Planned::malformed("/kms/v1/keys/key-123/rotate", in_scope(json!({}))),
        _ => Planned {
            headers: vec![("authorization", "Bearer not.a.token".to_owned())],
            status: 401,
            ..malformed(sign)
        },
    }
}

pub(super) fn read(world: &World, random: &mut Random) -> Planned {
    let who = super::somebody(random);
    let key = random.pick(&world.keys).map(|key| key.id.clone());
    let refused_or = |status| match who {
        Who::OtherTenant => 403,
        _ => status,
    };
    match random.below(8) {
        0 => {
            let status = refused_or(if key.is_some() { 200 } else { 404 });
            let id = key.as_deref().unwrap_or(UNKNOWN);
            Planned::read(who, format!("/kms/v1/keys/{id}?{SCOPE_QUERY}"), status)
        }
        1 => Planned::read(who, format!("/kms/v1/keys?{SCOPE_QUERY}"), refused_or(200)),
        2 => {
            let path = format!("/kms/v1/trust-anchors?{SCOPE_QUERY}");
            Planned::read(who, path, refused_or(200))
        }
        3 => {
            let path = format!("/kms/v1/receipts/{UNKNOWN}?{SCOPE_QUERY}");
            Planned::read(who, path, refused_or(404))
        }
        4 => Planned::read(
            who,
            format!("/kms/v1/receipts?{SCOPE_QUERY}"),
            refused_or(200),
        ),
        5 => Planned::read(who, "/kms/v1/ledger/checkpoint", 200),
        6 => Planned::read(who, "/kms/v1/ledger/tile/entries/000.p/1", 403),
        _ => Planned::read(who, "/kms/v1/config", 200),
    }
}
