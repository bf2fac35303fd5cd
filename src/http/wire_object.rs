//! The declaration of an object of a request.

/// Declares an object of a request: the struct, strict about unknown fields, its
/// [`WireObject`](super::fields::WireObject) and its description in one, so that they cannot drift apart. `scoped`
/// adds the tenant, environment and plane that every request about a key carries.
macro_rules! wire_object {
    (
        $(#[doc = $about:literal])*
        scoped $name:ident {
            $($(#[doc = $doc:literal])* $(#[serde($serde:ident)])? $field:ident: $type:ty,)*
        }
    ) => {
        $crate::http::wire_object::wire_object! {
            $(#[doc = $about])*
            $name {
                /// Whose key: the caller's own tenant.
                tenant_id: $crate::domain::ids::TenantId,
                /// Of which stage.
                environment: $crate::domain::scope::Environment,
                /// In which plane of the platform.
                plane: $crate::domain::scope::Plane,
                $($(#[doc = $doc])* $(#[serde($serde)])? $field: $type,)*
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
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $($(#[doc = $doc:literal])* $(#[serde($serde:ident)])? $field:ident: $type:ty,)*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields, remote = "Self")]
        pub(crate) struct $name {
            $($(#[doc = $doc])* $(#[serde($serde)])? pub(crate) $field: $type,)*
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map($crate::http::fields::ObjectOnly(
                    std::marker::PhantomData,
                ))
            }
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

            fn read_fields<'de, D: serde::Deserializer<'de>>(object: D) -> Result<Self, D::Error> {
                // The function that serde derives, which takes more than objects.
                Self::deserialize(object)
            }
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
                vec![$($crate::http::openapi::Field::asked::<$type>(
                    stringify!($field),
                    &[$($doc),*],
                    concat!($(stringify!($serde))?),
                    schemas,
                ),)*]
            }
        }
    };
}
pub(crate) use wire_object;
