//! From the types of the wire to their schemas (JSON Schema 2020-12, as OpenAPI 3.1
//! has it).
//!
//! A type says how it looks by [`Described`]. The objects of requests and answers are
//! declared by `wire_object!` and `answer_object!`, which describe them in the same
//! breath, field by field, with the comments of the source as their descriptions.

use std::collections::BTreeMap;

use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};

/// A value as it looks on the wire.
pub(crate) trait Described {
    /// Whether `null` may stand for it, and nothing at all in a request.
    const OPTIONAL: bool = false;

    /// Its schema. One that has a name goes into `schemas`, and what comes back refers to it.
    fn schema(schemas: &mut Schemas) -> RefOr<Schema>;
}

/// An object whose fields are known.
pub(crate) trait DescribedObject {
    /// Its name in the document.
    fn name() -> String;

    /// What it is.
    fn about() -> String;

    /// Its fields, in their order.
    fn fields(schemas: &mut Schemas) -> Vec<Field>;
}

/// A field of an object.
pub(crate) struct Field {
    /// Its name on the wire.
    pub(crate) name: String,
    /// What it is.
    pub(crate) about: String,
    /// How it looks where it is there.
    pub(crate) schema: RefOr<Schema>,
    /// Whether it may be left out.
    pub(crate) is_optional: bool,
    /// Whether `null` may stand for it.
    pub(crate) is_nullable: bool,
}

impl Field {
    /// A field of a request: what is optional may be `null` or not there.
    pub(crate) fn asked<T: Described>(
        name: &str,
        about: &[&str],
        serde: &str,
        schemas: &mut Schemas,
    ) -> Self {
        Self {
            name: name.to_owned(),
            about: sentence(about),
            schema: T::schema(schemas),
            is_optional: T::OPTIONAL || serde.contains("default"),
            is_nullable: T::OPTIONAL,
        }
    }

    /// A field of an answer: always there, unless serde skips it.
    pub(crate) fn answered<T: Described>(
        name: &str,
        about: &[&str],
        serde: &str,
        schemas: &mut Schemas,
    ) -> Self {
        let is_skipped = serde.contains("skip_serializing_if");
        Self {
            name: name.to_owned(),
            about: sentence(about),
            schema: T::schema(schemas),
            is_optional: is_skipped,
            is_nullable: T::OPTIONAL && !is_skipped,
        }
    }

    /// Its schema in an object, with what it is.
    fn in_object(self) -> RefOr<Schema> {
        let schema = match self.is_nullable {
            true => or_null(self.schema),
            false => self.schema,
        };
        with_description(schema, &self.about)
    }
}

/// A comment's lines as one text.
pub(crate) fn sentence(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ").trim().to_owned()
}

/// The schemas that have names.
#[derive(Default)]
pub(crate) struct Schemas(BTreeMap<String, RefOr<Schema>>);

impl Schemas {
    /// A reference to the schema of this name, which is made where it is not there yet.
    pub(crate) fn named(
        &mut self,
        name: impl Into<String>,
        make: impl FnOnce(&mut Self) -> Schema,
    ) -> RefOr<Schema> {
        let name = name.into();
        if !self.0.contains_key(&name) {
            let made = make(self);
            self.0.insert(name.clone(), RefOr::T(made));
        }
        Ref::from_schema_name(name).into()
    }

    /// A reference to the schema of an object that a request holds: what is not known is refused.
    pub(crate) fn asked<T: DescribedObject>(&mut self) -> RefOr<Schema> {
        self.named(T::name(), |schemas| {
            closed(object(T::about(), T::fields(schemas))).into()
        })
    }

    /// A reference to the schema of an object that an answer holds: a later version may add to it.
    pub(crate) fn answered<T: DescribedObject>(&mut self) -> RefOr<Schema> {
        self.named(T::name(), |schemas| {
            object(T::about(), T::fields(schemas)).into()
        })
    }

    /// All of them.
    pub(crate) fn into_map(self) -> BTreeMap<String, RefOr<Schema>> {
        self.0
    }
}

/// An object of these fields.
pub(crate) fn object(about: impl Into<String>, fields: Vec<Field>) -> ObjectBuilder {
    let about = about.into();
    let mut object = ObjectBuilder::new().description((!about.is_empty()).then_some(about));
    for field in fields {
        let name = field.name.clone();
        if !field.is_optional {
            object = object.required(name.clone());
        }
        object = object.property(name, field.in_object());
    }
    object
}

/// The same without any other field.
pub(crate) fn closed(object: ObjectBuilder) -> ObjectBuilder {
    object.additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

/// A text.
pub(crate) fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// A text of this form, with this many characters.
pub(crate) fn text_like(pattern: &str, shortest: usize, longest: usize) -> ObjectBuilder {
    text()
        .pattern(Some(pattern))
        .min_length(Some(shortest))
        .max_length(Some(longest))
}

/// One of these words; the first is the example.
pub(crate) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    let words: Vec<&str> = words.into_iter().collect();
    let example = words.first().copied();
    text().examples(example).enum_values(Some(words))
}

/// A whole number.
pub(crate) fn whole_number(least: usize, most: usize) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(least))
        .maximum(Some(most))
}

/// A list.
pub(crate) fn list(items: impl Into<RefOr<Schema>>) -> ArrayBuilder {
    ArrayBuilder::new().items(items.into())
}

fn or_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) if object.enum_values.is_none() => {
            object.schema_type = match object.schema_type {
                SchemaType::Type(one) => SchemaType::Array(vec![one, Type::Null]),
                other => other,
            };
            RefOr::T(object.into())
        }
        other => {
            let null = ObjectBuilder::new().schema_type(Type::Null);
            Schema::from(OneOfBuilder::new().item(other).item(null).build()).into()
        }
    }
}

fn with_description(schema: RefOr<Schema>, about: &str) -> RefOr<Schema> {
    if about.is_empty() {
        return schema;
    }
    match schema {
        RefOr::Ref(mut reference) => {
            about.clone_into(&mut reference.description);
            RefOr::Ref(reference)
        }
        RefOr::T(mut schema) => {
            let place = match &mut schema {
                Schema::Object(object) => &mut object.description,
                Schema::Array(array) => &mut array.description,
                Schema::OneOf(one_of) => &mut one_of.description,
                Schema::AllOf(all_of) => &mut all_of.description,
                Schema::AnyOf(any_of) => &mut any_of.description,
                _ => return RefOr::T(schema),
            };
            *place = Some(about.to_owned());
            RefOr::T(schema)
        }
    }
}

impl<T: Described> Described for Option<T> {
    const OPTIONAL: bool = true;

    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        T::schema(schemas)
    }
}

impl<T: Described> Described for Vec<T> {
    fn schema(schemas: &mut Schemas) -> RefOr<Schema> {
        let items = T::schema(schemas);
        Schema::from(list(items)).into()
    }
}

impl Described for bool {
    fn schema(_: &mut Schemas) -> RefOr<Schema> {
        Schema::from(ObjectBuilder::new().schema_type(Type::Boolean)).into()
    }
}

impl Described for String {
    fn schema(_: &mut Schemas) -> RefOr<Schema> {
        Schema::from(text()).into()
    }
}

/// Numbers that every reader of JSON keeps exactly.
macro_rules! number {
    ($($type:ty),*) => {
        $(impl Described for $type {
            fn schema(_: &mut Schemas) -> RefOr<Schema> {
                let largest = crate::domain::policy::LARGEST_DAILY_LIMIT as usize;
                Schema::from(whole_number(0, largest.min(<$type>::MAX as usize))).into()
            }
        })*
    };
}
number!(u32, u64, usize);

/// Declares an object of an answer, which serde writes and the document describes.
/// `=> Type` says what a field looks like whose own type does not tell.
macro_rules! answer_object {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($serde:tt)*)])?
                $vis:vis $field:ident: $type:ty $(=> $shown:ty)?,
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(serde::Serialize)]
        pub(crate) struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $vis $field: $type,
            )*
        }

        impl $crate::http::openapi::DescribedObject for $name {
            fn name() -> String {
                stringify!($name).to_owned()
            }

            fn about() -> String {
                $crate::http::openapi::sentence(&[$($about),*])
            }

            fn fields(
                schemas: &mut $crate::http::openapi::Schemas,
            ) -> Vec<$crate::http::openapi::Field> {
                let fields = [$($crate::http::openapi::answer_object!(
                    @field schemas, [$($($serde)*)?], [$($shown)?], $field, [$($doc),*], $type
                )),*];
                fields.into_iter().flatten().collect()
            }
        }

        impl $crate::http::openapi::Described for $name {
            fn schema(
                schemas: &mut $crate::http::openapi::Schemas,
            ) -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                schemas.answered::<Self>()
            }
        }
    };
    (@field $schemas:ident, [flatten], [], $field:ident, [$($doc:literal),*], $type:ty) => {
        <$type as $crate::http::openapi::DescribedObject>::fields($schemas)
    };
    (
        @field $schemas:ident, [$($serde:tt)*], [], $field:ident, [$($doc:literal),*], $type:ty
    ) => {
        $crate::http::openapi::answer_object!(
            @field $schemas, [$($serde)*], [$type], $field, [$($doc),*], $type
        )
    };
    (
        @field $schemas:ident, [$($serde:tt)*], [$shown:ty],
        $field:ident, [$($doc:literal),*], $type:ty
    ) => {
        vec![$crate::http::openapi::Field::answered::<$shown>(
            stringify!($field), &[$($doc),*], stringify!($($serde)*), $schemas,
        )]
    };
}
pub(crate) use answer_object;
