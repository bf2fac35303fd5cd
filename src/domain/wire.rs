//! What every value that arrives in a request can say of itself.

use super::error::FieldFault;

/// A value that is made by parsing one field of a request.
///
/// The text is what a caller reads when the field was wrong, so it says what
/// would have been right and never repeats what came.
pub trait WireField {
    /// What the field must look like, for instance `one of dev, staging, prod`.
    const EXPECTED: &'static str;

    /// For a field that is an object or a list of objects: what is wrong inside it, each
    /// with its path from the field on, such as `.name` or `[3].name`.
    fn faults_inside(_value: &serde_json::Value) -> Vec<FieldFault> {
        Vec::new()
    }
}

impl WireField for bool {
    const EXPECTED: &'static str = "true or false";
}

impl<T: WireField> WireField for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn faults_inside(value: &serde_json::Value) -> Vec<FieldFault> {
        T::faults_inside(value)
    }
}

/// What a text that does not parse is answered: the type knows the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Unparsable(pub &'static str);

/// Serde and text conversions for a type with `parse(&str) -> Option<Self>` and
/// `as_str(&self) -> &str`, which is the whole of its grammar.
macro_rules! text_form {
    ($name:ident, $expected:expr) => {
        impl $crate::domain::wire::WireField for $name {
            const EXPECTED: &'static str = $expected;
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::wire::Unparsable;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text).ok_or($crate::domain::wire::Unparsable($expected))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::domain::wire::Unparsable;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str().as_ref())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use text_form;
