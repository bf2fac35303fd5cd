//! Reading an object field by field, and naming every field that is wrong.
//!
//! A request is read by serde in one pass. Only when that fails it is gone
//! through a second time, field by field, to answer with all faults and not with
//! the first; and never with what the caller sent.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::domain::error::{FieldFault, FieldProblem, KmsError, RequestFault};
use crate::domain::wire::WireField;

/// The longest piece of an unknown field's name that is answered.
const LONGEST_ECHOED_NAME: usize = 64;

/// A request, or a part of one, that is a JSON object.
pub(crate) trait WireObject: DeserializeOwned {
    /// Everything that is wrong with the fields of this object.
    fn faults(object: &Map<String, Value>) -> Vec<FieldFault>;
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
    if faults.is_empty() {
        // Each field alone is right, so one of them came twice: serde says which
        // in a message of its own making, `duplicate field `name``.
        let text = error.to_string();
        let name = text.split('`').nth(1).unwrap_or("body").to_owned();
        faults.push(FieldFault {
            field: Cow::Owned(name),
            problem: FieldProblem::Duplicate,
            expected: Cow::Borrowed("each field once"),
        });
    }
    Err(RequestFault::Fields(faults).into())
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
    serde_json::from_value(Value::Object(object)).map_err(KmsError::internal)
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
                    self.faults
                        .extend(inside.into_iter().map(|inner| FieldFault {
                            field: Cow::Owned(format!("{name}.{}", inner.field)),
                            ..inner
                        }));
                }
            }
        }
    }

    /// What was found.
    pub(crate) fn finish(self) -> Vec<FieldFault> {
        self.faults
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(LONGEST_ECHOED_NAME).collect()
}

/// Declares an object of a request: the struct, strict about unknown fields, and
/// its [`WireObject`] in one, so that the two cannot drift apart. `scoped` adds
/// the tenant, environment and plane that every request about a key carries.
macro_rules! wire_object {
    ($(#[$meta:meta])* scoped $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $crate::http::fields::wire_object! {
            $(#[$meta])*
            $name {
                /// Whose.
                tenant_id: $crate::domain::ids::TenantId,
                /// Of which stage.
                environment: $crate::domain::scope::Environment,
                /// In which plane.
                plane: $crate::domain::scope::Plane,
                $($(#[$doc])* $field: $type,)*
            }
        }

        impl $name {
            /// The compartment that the request names.
            pub(crate) fn scope(&self) -> $crate::domain::scope::Scope {
                $crate::domain::scope::Scope {
                    tenant_id: self.tenant_id.clone(),
                    environment: self.environment,
                    plane: self.plane,
                }
            }
        }
    };
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$doc])* pub(crate) $field: $type,)*
        }

        impl $crate::http::fields::WireObject for $name {
            fn faults(
                object: &serde_json::Map<String, serde_json::Value>,
            ) -> Vec<$crate::domain::error::FieldFault> {
                let mut finder =
                    $crate::http::fields::FaultFinder::new(object, &[$(stringify!($field)),*]);
                $(finder.check::<$type>(stringify!($field));)*
                finder.finish()
            }
        }
    };
}
pub(crate) use wire_object;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::algorithm::KeyType;

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
