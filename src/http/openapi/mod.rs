//! The OpenAPI document (3.1), made from the types of the wire.
//!
//! The only room that knows utoipa. It is made once, and served as the bytes it came to.
//! What is true of the service is asked of the service where it can be: words, patterns
//! and bounds of the types that read them, fields of the declarations that serde reads
//! and writes, statuses and headers of failures of the code that answers them. The
//! operations are listed in `operations/`, and a test holds that list to the router.

mod describe;
mod envelope;
mod examples;
mod failures;
mod headers;
mod operation;
mod operations;
pub(crate) mod texts;
mod types;

pub(crate) use describe::{
    Described, DescribedObject, Field, Schemas, answer_object, closed, list, object, one_of,
    sentence, text, text_like, whole_number,
};
pub(crate) use types::{inside, named, usage_asked, words};

use std::sync::LazyLock;

use bytes::Bytes;
use utoipa::openapi::path::PathsBuilder;
use utoipa::openapi::schema::ComponentsBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Server};

/// The names of the ways to say who calls.
const MUTUAL_TLS: &str = "mutualTls";
const BEARER: &str = "bearerToken";

/// The document.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    // Its types serialize by construction; a test reads it back.
    Bytes::from(serde_json::to_vec(&make()).unwrap_or_default())
});

/// The OpenAPI document, as JSON.
pub fn document() -> Bytes {
    DOCUMENT.clone()
}

fn make() -> OpenApi {
    let mut schemas = Schemas::default();
    let mut responses = operation::Responses::new();
    let mut paths = PathsBuilder::new();
    for operation in operations::all() {
        let (path, method) = (operation.path, operation.http_method());
        let documented = operation.document(&mut schemas, &mut responses);
        paths = paths.path(path, PathItem::new(method, documented));
    }
    let components = headers::declare(ComponentsBuilder::new(), &mut schemas)
        .schemas_from_iter(schemas.into_map())
        .responses_from_iter(responses)
        .security_scheme(
            MUTUAL_TLS,
            SecurityScheme::MutualTls {
                description: Some(
                    "A client certificate whose one URI name says tenant, environment, plane and \
                     module. In development, and only there, a request without one is believed."
                        .to_owned(),
                ),
                deprecated: None,
                extensions: None,
            },
        )
        .security_scheme(
            BEARER,
            SecurityScheme::Http(
                HttpBuilder::new()
                    .scheme(HttpAuthScheme::Bearer)
                    .bearer_format("JWT")
                    .description(Some(
                        "A token of the identity service (M21), where the service is set up for \
                         them (`auth.jwks`): beside the certificate, or alone in development.",
                    ))
                    .build(),
            ),
        );
    let nothing = Vec::<String>::new;
    let info = InfoBuilder::new()
        .title("Key management service (M33)")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new("/")]))
        .paths(paths)
        .components(Some(components.build()))
        .security(Some([
            SecurityRequirement::new(MUTUAL_TLS, nothing()),
            SecurityRequirement::new(MUTUAL_TLS, nothing()).add(BEARER, nothing()),
            SecurityRequirement::new(BEARER, nothing()),
        ]))
        .tags(Some(operations::TAGS.map(|(name, about)| {
            TagBuilder::new()
                .name(name)
                .description(Some(about))
                .build()
        })))
        .build()
}

/// What holds for all of it.
const ABOUT: &str = "Makes, rotates and revokes keys, signs, verifies, encrypts and decrypts with \
them, and leaves a signed receipt for everything it does or refuses.

Bodies are JSON in UTF-8; a field that is not known is refused. Binary fields are standard base64 \
with padding, times are RFC 3339 in UTC. Whatever is not a 2xx answers one envelope, `error`, of \
which `code` is for programs. A path that does not exist is 404, a method that a path does not \
take 405 with `Allow`, both `INVALID_REQUEST`.";

#[cfg(test)]
mod tests;
