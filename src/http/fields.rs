//! Reading an object field by field, and naming every field that is wrong.
//!
//! A request is read by serde in one pass. Only when that fails it is gone
//! through a second time, field by field, to answer with all faults and not with
//! the first; and never with what the caller sent.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::domain::batch::LARGEST_BATCH;
use crate::domain::error::{FieldFault, FieldProblem, KmsError, RequestFault};
use crate::domain::wire::WireField;

/// The longest piece of an unknown field's name that is answered.
const LONGEST_ECHOED_NAME: usize = 64;

/// A request, or a part of one, that is a JSON object.
pub(crate) trait WireObject: DeserializeOwned {
    /// Everything that is wrong with the fields of this object.
    fn faults(object: &Map<String, Value>) -> Vec<FieldFault>;

    /// Reads the fields from an object.
    ///
    /// # Errors
    /// The deserializer's, for the first field that is wrong.
    fn read_fields<'de, D: Deserializer<'de>>(object: D) -> Result<Self, D::Error>;
}

/// Reads a request body.
///
/// # Errors
/// [`RequestFault`]: not JSON, not an object, or the fields that are wrong.
pub(crate) fn read_json<T: WireObject>(body: &[u8]) -> Result<T, KmsError> {
    let error = match serde_json::from_slice(body) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let value: Value = serde_json::from_slice(body).map_err(|syntax| RequestFault::NotJson {
        line: syntax.line(),
        column: syntax.column(),
    })?;
    let Value::Object(object) = value else {
        return Err(RequestFault::NotAnObject.into());
    };
    let mut faults = T::faults(&object);
    faults.extend(duplicates(body));
    if faults.is_empty() {
        // Neither a single field nor a repeated one: all that can be told is the
        // place. The error's own text may hold a value.
        return Err(RequestFault::NotJson {
            line: error.line(),
            column: error.column(),
        }
        .into());
    }
    Err(RequestFault::Fields(faults).into())
}

/// The fields that come more than once, those of inner objects by their path.
fn duplicates(body: &[u8]) -> Vec<FieldFault> {
    let mut repeated = Vec::new();
    if let Ok(text) = std::str::from_utf8(body) {
        find_repeated(text, "", &mut repeated);
    }
    let mut named = HashSet::new();
    repeated.retain(|field| named.insert(field.clone()));
    repeated
        .into_iter()
        .map(|field| FieldFault {
            field: Cow::Owned(field),
            problem: FieldProblem::Duplicate,
            expected: Cow::Borrowed("each field once"),
        })
        .collect()
}

/// A parsed [`Value`] keeps only the last of equal fields, so this looks at the
/// text, which is known to be JSON and so not nested beyond measure.
fn find_repeated(object: &str, path: &str, repeated: &mut Vec<String>) {
    let Ok(Entries(entries)) = serde_json::from_str(object) else {
        return;
    };
    let mut seen = HashSet::new();
    for (name, value) in entries {
        let field = format!("{path}{}", shortened(&name));
        find_repeated(value.get(), &format!("{field}."), repeated);
        // Of a list no more than a request may have, and no lists in lists.
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
        for (place, item) in items.iter().take(LARGEST_BATCH).enumerate() {
            find_repeated(item.get(), &format!("{field}[{place}]."), repeated);
        }
        if !seen.insert(name) {
            repeated.push(field);
        }
    }
}

/// The fields of an object in the order in which they came, repeated ones too.
struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Reads an object and nothing else: serde's own structs also take a list of
/// their fields in order, which would get past the names.
pub(crate) struct ObjectOnly<T>(pub(crate) PhantomData<T>);

impl<'de, T: WireObject> Visitor<'de> for ObjectOnly<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::read_fields(MapAccessDeserializer::new(map))
    }
}

/// Reads a query string.
///
/// # Errors
/// [`RequestFault::Fields`] with the parameters that are wrong.
pub(crate) fn read_query<T: WireObject>(query: &str) -> Result<T, KmsError> {
    let mut object = Map::new();
    let mut faults = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if object.contains_key(name.as_ref()) {
            faults.push(FieldFault {
                field: Cow::Owned(shortened(&name)),
                problem: FieldProblem::Duplicate,
                expected: Cow::Borrowed("each parameter once"),
            });
        }
        object.insert(name.into_owned(), Value::String(value.into_owned()));
    }
    faults.extend(T::faults(&object));
    if !faults.is_empty() {
        return Err(RequestFault::Fields(faults).into());
    }
    // Not the error's own text, which may hold a value.
    serde_json::from_value(Value::Object(object))
        .map_err(|_| KmsError::internal("a query without a fault does not read"))
}

/// Collects the faults of one object.
pub(crate) struct FaultFinder<'a> {
    object: &'a Map<String, Value>,
    faults: Vec<FieldFault>,
}

impl<'a> FaultFinder<'a> {
    /// Starts with the fields that should not be there.
    pub(crate) fn new(object: &'a Map<String, Value>, known: &[&str]) -> Self {
        let faults = object
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| FieldFault {
                field: Cow::Owned(shortened(name)),
                problem: FieldProblem::Unknown,
                expected: Cow::Owned(format!("only {}", known.join(", "))),
            })
            .collect();
        Self { object, faults }
    }

    /// Checks one field.
    pub(crate) fn check<T: DeserializeOwned + WireField>(&mut self, name: &'static str) {
        let fault = |problem| FieldFault {
            field: Cow::Borrowed(name),
            problem,
            expected: Cow::Borrowed(T::EXPECTED),
        };
        match self.object.get(name) {
            // Only an optional field can be made of nothing.
            None => {
                if T::deserialize(Value::Null).is_err() {
                    self.faults.push(fault(FieldProblem::Missing));
                }
            }
            Some(value) => {
                if T::deserialize(value).is_err() {
                    let inside = T::faults_inside(value);
                    if inside.is_empty() {
                        self.faults.push(fault(FieldProblem::Invalid));
                    }
                    self.faults.extend(below(name, inside));
                }
            }
        }
    }

    /// What was found.
    pub(crate) fn finish(self) -> Vec<FieldFault> {
        self.faults
    }
}

/// These faults of an inner object, with what leads to it before their names.
pub(crate) fn below(path: &str, faults: Vec<FieldFault>) -> impl Iterator<Item = FieldFault> {
    faults.into_iter().map(move |inner| FieldFault {
        field: Cow::Owned(format!("{path}{}", inner.field)),
        ..inner
    })
}

fn shortened(name: &str) -> String {
    name.chars().take(LONGEST_ECHOED_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::algorithm::KeyType;
    use crate::http::wire_object::wire_object;

    wire_object! {
        /// A request for the tests.
        scoped Sample {
            /// Required.
            key_type: KeyType,
            /// Optional.
            flag: Option<bool>,
        }
    }

    const SCOPE: &str = r#""tenant_id":"t","environment":"dev","plane":"tenant""#;

    fn faults(body: &str) -> Vec<(String, &'static str)> {
        match read_json::<Sample>(body.as_bytes()) {
            Err(KmsError::InvalidRequest(RequestFault::Fields(faults))) => faults
                .into_iter()
                .map(|fault| (fault.field.into_owned(), fault.problem.as_str()))
                .collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_right_request_is_read_and_null_means_absent() {
        let body = format!(r#"{{{SCOPE},"key_type":"Ed25519","flag":null}}"#);
        let sample = read_json::<Sample>(body.as_bytes()).expect("valid");
        assert_eq!(sample.scope().tenant_id.as_str(), "t");
        assert_eq!((sample.key_type, sample.flag), (KeyType::Ed25519, None));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let body = r#"{"tenant_id":"-","environment":7,"key_type":null,"flag":"yes","ada":1}"#;
        let wanted = [
            ("ada", "unknown"),
            ("tenant_id", "invalid"),
            ("environment", "invalid"),
            ("plane", "missing"),
            ("key_type", "invalid"),
            ("flag", "invalid"),
        ];
        let found = faults(body);
        for (field, problem) in wanted {
            assert!(
                found.contains(&(field.to_owned(), problem)),
                "{field}: {found:?}"
            );
        }
        assert_eq!(found.len(), wanted.len());
    }

    #[test]
    fn a_field_that_comes_twice_is_refused_by_name() {
        let body = format!(r#"{{{SCOPE},"key_type":"Ed25519","key_type":"Ed25519"}}"#);
        assert_eq!(faults(&body), [("key_type".to_owned(), "duplicate")]);
    }

    #[test]
    fn the_name_of_a_repeated_field_is_never_taken_from_a_value() {
        let body = format!(r#"{{"flag":31337,{SCOPE},"key_type":"Ed25519","flag":true}}"#);
        assert_eq!(faults(&body), [("flag".to_owned(), "duplicate")]);
    }

    #[test]
    fn a_list_of_the_fields_in_order_is_no_object() {
        let body = r#"["t","dev","tenant","Ed25519",null]"#;
        assert!(matches!(
            read_json::<Sample>(body.as_bytes()).err(),
            Some(KmsError::InvalidRequest(RequestFault::NotAnObject))
        ));
    }

    #[test]
    fn what_is_not_json_or_not_an_object_says_so() {
        let read = |body: &str| read_json::<Sample>(body.as_bytes()).err();
        assert!(matches!(
            read("{\"a\":\n x}"),
            Some(KmsError::InvalidRequest(RequestFault::NotJson {
                line: 2,
                ..
            }))
        ));
        assert!(matches!(
            read("[]"),
            Some(KmsError::InvalidRequest(RequestFault::NotAnObject))
        ));
        assert!(matches!(
            read(""),
            Some(KmsError::InvalidRequest(RequestFault::NotJson { .. }))
        ));
    }

    #[test]
    fn a_query_parameter_that_comes_twice_is_refused() {
        let query = "tenant_id=a&tenant_id=b&environment=dev&plane=tenant&key_type=Ed25519";
        assert!(read_query::<Sample>(query).is_err());
        let once = "tenant_id=a&environment=dev&plane=tenant&key_type=Ed25519";
        assert!(read_query::<Sample>(once).is_ok());
    }

    #[test]
    fn a_fault_never_repeats_the_value_that_was_sent() {
        let body = format!(r#"{{{SCOPE},"key_type":"s3cr3t-value"}}"#);
        let error = read_json::<Sample>(body.as_bytes()).err().expect("invalid");
        assert!(!format!("{error:?} {error}").contains("s3cr3t"));
    }
}
