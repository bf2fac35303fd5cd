//! The page that shows the OpenAPI document: Swagger UI, whose files are in the binary.

use std::sync::Arc;

use axum::Extension;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::domain::error::{KmsError, RequestFault};
use crate::http::error::ApiError;
use crate::http::openapi_document;
use crate::http::stack::Page;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The page. What it needs lies beside it.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Key management service (M33)</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"#;

/// Starts the library. Without `validatorUrl` it would have the document judged elsewhere.
const START: &str = r##"SwaggerUIBundle({
  url: "docs/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"##;

/// The two files of the library that the page needs.
const OF_THE_LIBRARY: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

/// `GET /kms/v1/docs`
pub(crate) async fn page() -> impl IntoResponse {
    part(HTML, Bytes::from_static(PAGE.as_bytes()))
}

/// `GET /kms/v1/docs/{file}`
pub(crate) async fn file(name: Result<Path<String>, PathRejection>) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| RequestFault::UnknownPath)?;
    match name.as_str() {
        "start.js" => Ok(part(SCRIPT, Bytes::from_static(START.as_bytes()))),
        "openapi.json" => Ok(part(JSON, openapi_document())),
        name if OF_THE_LIBRARY.contains(&name) => of_the_library(name),
        _ => Err(RequestFault::UnknownPath.into()),
    }
}

fn of_the_library(name: &str) -> Result<Response, ApiError> {
    let config = Arc::new(utoipa_swagger_ui::Config::from("docs/openapi.json"));
    let file = utoipa_swagger_ui::serve(name, config)
        .map_err(|fault| KmsError::internal(fault.to_string()))?
        .ok_or(RequestFault::UnknownPath)?;
    let media_type = HeaderValue::try_from(file.content_type).map_err(KmsError::internal)?;
    Ok(part(media_type, Bytes::from(file.bytes.into_owned())))
}

fn part(media_type: HeaderValue, bytes: Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE, media_type)];
    (Extension(Page), headers, bytes).into_response()
}
