//! Holds the document to the router, the patterns to the types that read them, and the
//! examples to their schemas.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::string::string_regex;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::document;
use crate::domain::binary::Base64Bytes;
use crate::domain::ids::{KeyAlias, KeyId, KeyRef, ModuleId, TenantId};
use crate::domain::ledger::TilePath;
use crate::domain::time::{Period, Timestamp};
use crate::http::dto::{
    Cursor, GenerateKeyBody, LineCursor, NonceField, Reference, RotationPeriodField, UpdateKeyBody,
};
use crate::http::fields::read_json;
use crate::http::router::every_route;

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_slice(&document()).expect("JSON"));

/// What checks values against a schema of the document.
fn validator(schema: Value) -> Validator {
    let mut root = json!({ "components": DOCUMENT["components"] });
    let object = root.as_object_mut().expect("an object");
    object.extend(schema.as_object().expect("an object").clone());
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&root)
        .expect("a schema")
}

fn named(name: &str) -> Validator {
    validator(json!({ "$ref": format!("#/components/schemas/{name}") }))
}

fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        let item: &'static Map<String, Value> = item.as_object().expect("an item");
        item.iter()
            .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

#[test]
fn what_is_routed_is_documented_and_nothing_else() {
    let routed: BTreeSet<(String, String)> = every_route()
        .into_iter()
        // A tail of several parts is one parameter whose slashes may stand as they are.
        .map(|(method, path)| (path.replace("{*", "{"), method.as_str().to_lowercase()))
        .collect();
    let documented: BTreeSet<(String, String)> = operations()
        .map(|(path, method, _)| (path.to_owned(), method.to_owned()))
        .collect();
    assert_eq!(routed, documented);
    assert!(routed.len() > 35);
}

#[test]
fn every_operation_has_an_id_of_its_own_and_names_what_is_in_its_path() {
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations() {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} is there twice");
        let in_path: Vec<&str> = operation["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        let named: Vec<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        assert_eq!(in_path, named, "{method} {path}");
    }
}

#[test]
fn every_route_has_an_operation_for_the_metrics() {
    use crate::telemetry::metrics::RequestOperation;
    for (method, path) in every_route() {
        let operation = crate::http::router::operation_of(&method, path);
        assert_ne!(operation, RequestOperation::Unknown, "{method} {path}");
        // What is left out of the list starts without the zeros of its failures.
        assert!(
            RequestOperation::ALL.contains(&operation),
            "{method} {path}"
        );
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    found.insert(reference);
                }
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    references(&DOCUMENT, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("into this document");
        assert!(DOCUMENT.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_schema_is_one() {
    let schemas = DOCUMENT["components"]["schemas"]
        .as_object()
        .expect("schemas");
    for (name, schema) in schemas {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
        named(name);
    }
}

#[test]
fn every_example_is_what_its_schema_says() {
    let mut checked = 0;
    let mut check = |content: &Value, place: &str| {
        let schema = validator(content["schema"].clone());
        let named = content["examples"].as_object().into_iter().flatten();
        let examples = named.map(|(_, example)| &example["value"]);
        for example in examples.chain(content.get("example")) {
            let errors: Vec<String> = schema
                .iter_errors(example)
                .map(|error| error.to_string())
                .collect();
            assert!(errors.is_empty(), "{place}: {example}: {errors:?}");
            checked += 1;
        }
    };
    for (path, method, operation) in operations() {
        let body = &operation["requestBody"]["content"]["application/json"];
        if body.is_object() {
            assert!(
                body["example"].is_object(),
                "{method} {path} has no example"
            );
            check(body, path);
        }
        for response in operation["responses"]
            .as_object()
            .expect("responses")
            .values()
        {
            for content in response["content"].as_object().into_iter().flatten() {
                let is_success = response["description"] == "It was done.";
                let wants = is_success && content.0 == "application/json";
                let is_document = path.ends_with("openapi.json");
                assert!(
                    !wants || is_document || content.1["example"].is_object(),
                    "{method} {path} has no example"
                );
                check(content.1, path);
            }
        }
    }
    for (name, response) in DOCUMENT["components"]["responses"]
        .as_object()
        .expect("responses")
    {
        check(&response["content"]["application/json"], name);
    }
    assert!(checked > 100, "{checked}");
}

/// What a reference leads to, or the value itself.
fn resolved(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("into this document");
            DOCUMENT.pointer(pointer).expect("it leads somewhere")
        }
        None => value,
    }
}

/// The examples of a parameter or a header: its own, or those of its schema.
fn examples_of(described: &Value) -> Vec<&Value> {
    let schema = resolved(&described["schema"]);
    let of_schema = schema["examples"].as_array().into_iter().flatten();
    described
        .get("example")
        .into_iter()
        .chain(of_schema)
        .collect()
}

#[test]
fn every_parameter_and_every_header_says_what_it_is_and_shows_one() {
    let mut checked = BTreeSet::new();
    let mut check = |described: &'static Value, place: &str| {
        // A description beside a reference to a schema is one of the schema.
        let about = described["description"].as_str().unwrap_or_default();
        assert!(about.ends_with('.'), "{place} says {about:?}");
        let examples = examples_of(described);
        assert!(!examples.is_empty(), "{place} has no example");
        let schema = validator(described["schema"].clone());
        for example in examples {
            assert!(schema.is_valid(example), "{place}: {example}");
        }
        checked.insert(place.to_owned());
    };
    for (path, method, operation) in operations() {
        let parameters = operation["parameters"].as_array().expect("parameters");
        for parameter in parameters.iter().map(resolved) {
            let name = parameter["name"].as_str().expect("a name");
            check(parameter, &format!("{name} of {method} {path}"));
        }
        let responses = operation["responses"].as_object().expect("responses");
        for response in responses.values().map(resolved) {
            for (name, header) in response["headers"].as_object().expect("headers") {
                check(resolved(header), name);
            }
        }
    }
    for (name, header) in DOCUMENT["components"]["headers"]
        .as_object()
        .expect("headers")
    {
        check(header, name);
    }
    assert!(checked.len() > 150, "{}", checked.len());
}

/// Texts that are of a pattern, nearly of it, and of none.
fn around(name: &str) -> impl Strategy<Value = String> + use<> {
    let schema = &DOCUMENT["components"]["schemas"][name];
    let pattern = schema["pattern"].as_str().expect("a pattern");
    let pattern = pattern.trim_start_matches('^').trim_end_matches('$');
    let of_it = string_regex(pattern).expect("a pattern").boxed();
    let nearly = (of_it.clone(), any::<prop::sample::Index>(), "[ -~]|\\PC").prop_map(
        |(text, place, other)| {
            let mut characters: Vec<char> = text.chars().collect();
            if !characters.is_empty() {
                let place = place.index(characters.len());
                characters.splice(place..=place, other.chars());
            }
            characters.into_iter().collect()
        },
    );
    prop_oneof![of_it, nearly, "\\PC{0,40}"]
}

fn reads<T: DeserializeOwned>(text: &str) -> bool {
    serde_json::from_value::<T>(text.into()).is_ok()
}

fn parses<T: FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

macro_rules! the_schema_says_what_is_read {
    ($($test:ident: $name:literal, $reads:expr;)*) => {
        $(proptest! {
            #[test]
            fn $test(text in around($name)) {
                static SCHEMA: LazyLock<Validator> = LazyLock::new(|| named($name));
                prop_assert_eq!(SCHEMA.is_valid(&json!(text)), $reads(&text), "{:?}", text);
            }
        })*
    };
}

the_schema_says_what_is_read! {
    a_tenant_is_what_its_schema_says: "TenantId", parses::<TenantId>;
    a_module_is_what_its_schema_says: "ModuleId", parses::<ModuleId>;
    an_alias_is_what_its_schema_says: "KeyAlias", parses::<KeyAlias>;
    an_id_is_what_its_schema_says: "KeyId", parses::<KeyId>;
    a_key_reference_is_what_its_schema_says: "KeyRef", parses::<KeyRef>;
    base64_is_what_its_schema_says: "Base64Bytes", reads::<Base64Bytes>;
    a_nonce_is_what_its_schema_says: "NonceField", reads::<NonceField>;
    a_cursor_is_what_its_schema_says: "Cursor", reads::<Cursor>;
    a_cursor_of_a_line_is_what_its_schema_says: "LineCursor", reads::<LineCursor>;
    a_reference_is_what_its_schema_says: "Reference", reads::<Reference>;
    a_tile_is_what_its_schema_says: "TilePath", parses::<TilePath>;
    a_time_is_what_its_schema_says: "Timestamp", reads::<Timestamp>;
}

proptest! {
    #[test]
    fn a_rotation_period_of_the_schema_is_read(text in around("RotationPeriodField")) {
        // The other way round more is read than is promised.
        let is_promised = named("RotationPeriodField").is_valid(&json!(text));
        prop_assert!(!is_promised || reads::<RotationPeriodField>(&text), "{}", text);
    }

    /// What was answered may be sent again.
    #[test]
    fn a_period_as_it_is_answered_is_of_both_schemas(microseconds in 1_000_000..=3_153_600_000_000_000_u64) {
        let text = Period::microseconds(microseconds).to_string();
        prop_assert!(named("Period").is_valid(&json!(text)), "{}", text);
        prop_assert!(named("RotationPeriodField").is_valid(&json!(text)), "{}", text);
        prop_assert!(reads::<RotationPeriodField>(&text), "{}", text);
    }
}

fn in_scope(fields: Value) -> Value {
    let mut body = json!({ "tenant_id": "t", "environment": "dev", "plane": "tenant" });
    let object = body.as_object_mut().expect("an object");
    object.extend(fields.as_object().expect("an object").clone());
    body
}

#[test]
fn a_usage_has_to_fit_the_type_of_the_key() {
    let schema = named("GenerateKeyBody");
    for (kind, usage, fits) in [
        ("Ed25519", json!("sign"), true),
        ("RSA-2048", json!(["sign", "verify", "sign"]), true),
        ("AES-256", json!(["encrypt"]), true),
        ("AES-256", json!(["sign"]), false),
        ("Ed25519", json!(["sign", "encrypt"]), false),
        ("Ed25519", json!([]), false),
        ("DES", json!("sign"), false),
    ] {
        let body = in_scope(json!({ "key_type": kind, "key_usage": usage }));
        assert_eq!(schema.is_valid(&body), fits, "{body}");
    }
}

#[test]
fn an_update_has_to_change_something() {
    let schema = named("UpdateKeyBody");
    for (fields, is_valid) in [
        (json!({}), false),
        (json!({ "access_policy": null }), false),
        (json!({ "access_policy": {} }), false),
        (
            json!({ "access_policy": { "requires_approval": null } }),
            false,
        ),
        (
            json!({ "access_policy": { "requires_approval": true } }),
            true,
        ),
        (
            json!({ "access_policy": { "requires_approval": true, "allowed_modules": null } }),
            true,
        ),
        (
            json!({ "access_policy": { "max_usage_per_day": 0 } }),
            false,
        ),
        (json!({ "key_alias": null }), true),
        (json!({ "key_alias": "" }), true),
        (json!({ "key_alias": "-" }), false),
    ] {
        let body = in_scope(fields);
        assert_eq!(schema.is_valid(&body), is_valid, "{body}");
    }
}

#[test]
fn a_field_that_is_not_known_is_refused_by_reader_and_schema_alike() {
    let body = json!({ "key_type": "Ed25519", "key_usage": "sign", "key_usages": "sign" });
    let body = in_scope(body);
    assert!(!named("GenerateKeyBody").is_valid(&body));
    assert!(read_json::<GenerateKeyBody>(body.to_string().as_bytes()).is_err());
    assert!(read_json::<UpdateKeyBody>(body.to_string().as_bytes()).is_err());
}
