//! Random requests of every kind, each with what the model expects of it.

mod nothing;

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{Effect, HowUsed, Key, Outcome, State, Use, Who, World};
use crate::support::{
    APPROVAL, Random, SCOPE_QUERY, TestAuthority, UNKNOWN, base64, in_scope, with,
};

pub(super) const DATA: &[u8] = b"what the model signs and encrypts";

/// The receipt that a request has to leave.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// `kms_context.operation_type`.
    pub(super) operation: &'static str,
    /// `kms_context.key_id`.
    pub(super) subject: Subject,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(super) enum Subject {
    Is(String),
    /// What the answer names, and `null` where it names nothing.
    Made,
}

/// A request, and what the model expects of it.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) who: Who,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<String>,
    /// `None` for what reaches no operation.
    pub(super) receipt: Option<Expected>,
    /// The status of what reaches no operation.
    pub(super) status: u16,
    pub(super) effect: Effect,
}

impl Planned {
    fn operation(
        who: Who,
        path: impl Into<String>,
        body: Value,
        (operation, subject): (&'static str, Subject),
        outcome: Outcome,
        effect: Effect,
    ) -> Self {
        Self {
            who,
            method: Method::POST,
            path: path.into(),
            headers: Vec::new(),
            body: Some(body.to_string()),
            receipt: Some(Expected {
                operation,
                subject,
                outcome,
            }),
            status: 0,
            effect,
        }
    }

    fn read(who: Who, path: impl Into<String>, status: u16) -> Self {
        Self {
            who,
            method: Method::GET,
            path: path.into(),
            headers: Vec::new(),
            body: None,
            receipt: None,
            status,
            effect: Effect::Nothing,
        }
    }

    /// A body that no operation gets to see.
    fn malformed(path: impl Into<String>, body: Value) -> Self {
        Self {
            method: Method::POST,
            body: Some(body.to_string()),
            ..Self::read(Who::Module, path, 400)
        }
    }
}

/// A random request to this world.
pub(super) fn plan(world: &World, random: &mut Random) -> Planned {
    match random.below(100) {
        0..12 => generate(world, random),
        12..60 => use_key(world, random),
        60..66 => rotate(world, random),
        66..71 => revoke(world, random),
        71..76 => add_anchor(random),
        76..81 => remove_anchor(world, random),
        81..92 => nothing::reach_nothing(world, random),
        _ => nothing::read(world, random),
    }
}

fn somebody(random: &mut Random) -> Who {
    match random.below(10) {
        0 => Who::Stranger,
        1 => Who::OtherTenant,
        _ => Who::Module,
    }
}

/// An approval, or one that is too short, or none; whether it counts.
fn approval(random: &mut Random) -> (Value, bool) {
    match random.below(10) {
        0 => (json!({}), false),
        1 => (json!({ "approval_token": "too short" }), false),
        _ => (json!({ "approval_token": APPROVAL }), true),
    }
}

fn generate(world: &World, random: &mut Random) -> Planned {
    let who = somebody(random);
    let choices: [(&str, &[Use]); 6] = [
        ("Ed25519", &[Use::Sign, Use::Verify]),
        ("Ed25519", &[Use::Sign]),
        ("AES-256", &[Use::Encrypt, Use::Decrypt]),
        ("AES-256", &[Use::Decrypt]),
        // What a type cannot do at all.
        ("Ed25519", &[Use::Encrypt]),
        ("AES-256", &[Use::Sign, Use::Encrypt]),
    ];
    let choice = random.below(choices.len());
    let (key_type, uses) = choices[choice];
    let alias = random
        .percent(40)
        .then(|| format!("line-{}", random.below(6)));
    let limit = if random.percent(30) { 3 } else { 10_000 };
    let requires_approval = random.percent(15);
    let (token, is_approved) = approval(random);
    let mut fields = json!({
        "key_type": key_type,
        "key_usage": uses.iter().map(|one| one.name()).collect::<Vec<_>>(),
        "access_policy": {
            "max_usage_per_day": limit, "requires_approval": requires_approval,
        },
    });
    if let Some(alias) = &alias {
        fields["key_alias"] = json!(alias);
    }
    let is_taken = alias
        .as_ref()
        .is_some_and(|alias| world.bearer(alias).is_some());
    let outcome = if who == Who::OtherTenant {
        Outcome::refused("UNAUTHORIZED")
    } else if choice >= 4 {
        Outcome::refused("INVALID_REQUEST")
    } else if !is_approved {
        Outcome::refused("UNAUTHORIZED")
    } else if is_taken {
        Outcome::refused("INVALID_REQUEST")
    } else {
        Outcome::DONE
    };
    let key = Key {
        id: String::new(),
        uses: uses.to_vec(),
        maker: who,
        alias,
        state: State::Active,
        limit,
        used: 0,
        requires_approval,
        signature: None,
        sealed: None,
    };
    let body = in_scope(with(fields, token));
    let what = ("generate", Subject::Made);
    Planned::operation(who, "/kms/v1/keys", body, what, outcome, Effect::Makes(key))
}

/// A reference to a key: its place where there is one, else it names none. What the
/// receipt says is the key's id, or the reference where nobody looked it up.
fn reference(world: &World, who: Who, random: &mut Random) -> (String, Option<usize>, Subject) {
    let place = match random.below(100) {
        0..6 => None,
        6..14 => {
            let alias = format!("line-{}", random.below(8));
            let reference = format!("alias/{alias}");
            let bearer = world.bearer(&alias);
            let named = match bearer {
                Some(place) if who != Who::OtherTenant => world.keys[place].id.clone(),
                _ => reference.clone(),
            };
            return (reference, bearer, Subject::Is(named));
        }
        // Mostly one of the youngest.
        14..70 => {
            let first = world.keys.len().saturating_sub(8);
            random
                .pick(&world.keys[first..])
                .map(|_| ())
                .map(|()| first + random.below(world.keys.len() - first))
        }
        _ if world.keys.is_empty() => None,
        _ => Some(random.below(world.keys.len())),
    };
    let id = place
        .map_or(UNKNOWN, |place| &world.keys[place].id)
        .to_owned();
    (id.clone(), place, Subject::Is(id))
}

fn missing(who: Who) -> Outcome {
    Outcome::refused(match who {
        Who::OtherTenant => "UNAUTHORIZED",
        _ => "KEY_NOT_FOUND",
    })
}

fn use_key(world: &World, random: &mut Random) -> Planned {
    let who = somebody(random);
    let (reference, place, subject) = reference(world, who, random);
    let key = place.map(|place| &world.keys[place]);
    // Mostly what the key is for.
    let with = key
        .filter(|_| random.percent(80))
        .and_then(|key| random.pick(&key.uses))
        .or(random.pick(&Use::ALL))
        .copied()
        .unwrap_or(Use::Sign);
    let (token, is_approved) = match random.percent(50) {
        true => approval(random),
        false => (json!({}), false),
    };
    let is_good = random.percent(70)
        && key.is_some_and(|key| match with {
            Use::Verify => key.signature.is_some(),
            Use::Decrypt => key.sealed.is_some(),
            _ => true,
        });
    let wrong_algorithm = matches!(with, Use::Sign | Use::Verify) && random.percent(10);
    let mut fields = match with {
        Use::Sign => json!({ "data": base64(DATA) }),
        Use::Encrypt => json!({ "plaintext": base64(DATA) }),
        Use::Verify => {
            let signature = key
                .filter(|_| is_good)
                .and_then(|key| key.signature.clone());
            let signature = signature.unwrap_or_else(|| json!(base64([1; 64])));
            json!({ "data": base64(DATA), "signature": signature })
        }
        Use::Decrypt => {
            let sealed = key.filter(|_| is_good).and_then(|key| key.sealed.clone());
            let sealed = sealed
                .unwrap_or_else(|| json!({ "ciphertext": base64([1; 40]), "iv": base64([1; 12]) }));
            json!({ "ciphertext": sealed["ciphertext"], "iv": sealed["iv"] })
        }
    };
    fields["key_id"] = json!(reference);
    if wrong_algorithm {
        fields["algorithm"] = json!("RSA-PSS-SHA256");
    }
    let how = HowUsed {
        who,
        with,
        wrong_algorithm,
        is_approved,
        is_good,
    };
    let outcome = key.map_or(missing(who), |key| key.judge(&how));
    let effect = place.map_or(Effect::Nothing, |place| Effect::Uses(place, with));
    let path = format!("/kms/v1/{}", with.name());
    let body = in_scope(self::with(fields, token));
    Planned::operation(who, path, body, (with.name(), subject), outcome, effect)
}

fn rotate(world: &World, random: &mut Random) -> Planned {
    let who = somebody(random);
    let (reference, place, subject) = reference(world, who, random);
    let (token, is_approved) = approval(random);
    let outcome = match place.map(|place| world.keys[place].state) {
        Some(_) if who == Who::OtherTenant => missing(who),
        None => missing(who),
        Some(State::Destroyed) => Outcome::refused("KEY_REVOKED"),
        Some(State::Replaced) => Outcome::refused("KEY_INACTIVE"),
        Some(State::Active) if !is_approved => Outcome::refused("UNAUTHORIZED"),
        Some(State::Active) => Outcome::DONE,
    };
    let effect = place.map_or(Effect::Nothing, Effect::Replaces);
    let path = format!("/kms/v1/keys/{reference}/rotate");
    Planned::operation(
        who,
        path,
        in_scope(token),
        ("rotate", subject),
        outcome,
        effect,
    )
}

fn revoke(world: &World, random: &mut Random) -> Planned {
    let who = somebody(random);
    let (reference, place, subject) = reference(world, who, random);
    let (token, is_approved) = approval(random);
    let outcome = match place.map(|place| world.keys[place].state) {
        Some(_) if who == Who::OtherTenant => missing(who),
        None => missing(who),
        Some(State::Destroyed) => Outcome::refused("KEY_REVOKED"),
        Some(_) if !is_approved => Outcome::refused("UNAUTHORIZED"),
        Some(_) => Outcome::DONE,
    };
    let effect = place.map_or(Effect::Nothing, Effect::Destroys);
    let path = format!("/kms/v1/keys/{reference}/revoke");
    let body = in_scope(with(token, json!({ "revocation_reason": "retired" })));
    Planned::operation(who, path, body, ("revoke", subject), outcome, effect)
}

fn add_anchor(random: &mut Random) -> Planned {
    let who = somebody(random);
    let is_certificate = random.percent(60);
    let certificate = match is_certificate {
        true => TestAuthority::new(&format!("anchor {}", random.number()))
            .der()
            .to_vec(),
        false => b"no certificate".to_vec(),
    };
    let outcome = match who {
        Who::OtherTenant => Outcome::refused("UNAUTHORIZED"),
        _ if is_certificate => Outcome::DONE,
        _ => Outcome::refused("INVALID_REQUEST"),
    };
    let body = in_scope(json!({ "certificate": base64(certificate), "anchor_type": "root" }));
    let what = ("trust_anchor_add", Subject::Made);
    Planned::operation(
        who,
        "/kms/v1/trust-anchors",
        body,
        what,
        outcome,
        Effect::AddsAnchor,
    )
}

fn remove_anchor(world: &World, random: &mut Random) -> Planned {
    let who = somebody(random);
    let known: Vec<&String> = world.anchors.iter().collect();
    let id = random.pick(&known).filter(|_| random.percent(70));
    let outcome = match (who, id) {
        (Who::OtherTenant, _) => Outcome::refused("UNAUTHORIZED"),
        (_, None) => Outcome::refused("INVALID_REQUEST"),
        (_, Some(_)) => Outcome::DONE,
    };
    let effect = id.map_or(Effect::Nothing, |id| Effect::RemovesAnchor((*id).clone()));
    let id = id.map_or(UNKNOWN, |id| id.as_str()).to_owned();
    let path = format!("/kms/v1/trust-anchors/{id}?{SCOPE_QUERY}");
    let what = ("trust_anchor_remove", Subject::Is(id));
    Planned {
        method: Method::DELETE,
        body: None,
        ..Planned::operation(who, path, json!({}), what, outcome, effect)
    }
}
