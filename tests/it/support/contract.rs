//! Holds every answer that a test gets to the OpenAPI document, and every request that
//! was accepted.
//!
//! An answer must be one that the document has for that path and method: its status, its
//! media type, its headers (those that must be there, and none that the document does not
//! know) and its body. The document lets answers grow in later versions; here an object
//! with a field that the document does not know is a fault. A request that came to a 2xx
//! must be one that the document allows.
//!
//! What HTTP itself answers before there is a request is no part of the document: bare
//! 400s and 431s of the HTTP library have no ids and no envelope. Tests of those read the
//! connection's bytes (`RawConnection::receive`), which nothing here looks at.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use jsonschema::Validator;
use reqwest::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, ORIGIN};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_slice(&kms::http::openapi_document()).expect("the document is JSON")
});

/// The document's components, for validators, with answers that may not grow.
static COMPONENTS: LazyLock<Value> = LazyLock::new(|| {
    let mut components = DOCUMENT["components"].clone();
    let schemas = components["schemas"].as_object_mut().expect("schemas");
    for (name, schema) in schemas {
        // This one describes a document by its first field.
        if name != "OpenApiDocument" {
            close(schema);
        }
    }
    components
});

/// Forbids every field that is not named.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let is_object = object.get("type").is_some_and(|kind| kind == "object");
            if is_object && object.contains_key("properties") {
                object
                    .entry("additionalProperties")
                    .or_insert(Value::Bool(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

/// What checks values against these schemas of the document, each compiled once.
fn is_valid(schema: &Value, value: &Value) -> Result<(), String> {
    static COMPILED: LazyLock<Mutex<HashMap<String, &'static Validator>>> =
        LazyLock::new(Mutex::default);
    let key = schema.to_string();
    let known = COMPILED.lock().expect("no panic").get(&key).copied();
    let validator = known.unwrap_or_else(|| {
        let mut root = schema.as_object().expect("a schema").clone();
        root.insert("components".to_owned(), COMPONENTS.clone());
        let compiled = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&Value::Object(root))
            .expect("a schema");
        let compiled: &'static Validator = Box::leak(Box::new(compiled));
        COMPILED.lock().expect("no panic").insert(key, compiled);
        compiled
    });
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|fault| format!("{} at {:?}", fault, fault.instance_path().to_string()))
        .collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults.join("; ")),
    }
}

/// Whether a request of this method with these headers is a preflight.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    let asks = [ORIGIN, ACCESS_CONTROL_REQUEST_METHOD];
    *method == Method::OPTIONS && asks.iter().all(|name| headers.contains_key(name))
}

/// A request and its answer.
pub(crate) struct Exchange<'a> {
    /// Whether it was asked of the operations listener, which has the probes and nothing else.
    pub(crate) of_operations: bool,
    /// Whether it is what a browser asks beforehand (Fetch, "CORS-preflight fetch").
    pub(crate) is_preflight: bool,
    /// The request's method.
    pub(crate) method: &'a Method,
    /// Its path, with the query.
    pub(crate) target: &'a str,
    /// Its body, where it is at hand.
    pub(crate) sent: Option<&'a [u8]>,
    /// The answer's status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// Its body.
    pub(crate) body: &'a [u8],
}

impl Exchange<'_> {
    /// Fails the test where the document says otherwise.
    #[track_caller]
    pub(crate) fn check(&self) {
        if let Err(fault) = self.fault() {
            panic!(
                "{} {}: {} {:?}\n{}\nis not what the document says: {fault}",
                self.method,
                self.target,
                self.status,
                self.headers,
                String::from_utf8_lossy(self.body),
            );
        }
    }

    fn fault(&self) -> Result<(), String> {
        let path = self.target.split('?').next().unwrap_or_default();
        // CORS answers a preflight by itself, with no body, and no operation has that. Any
        // other OPTIONS is of an unknown method.
        if self.is_preflight {
            return match self.status == StatusCode::OK && self.body.is_empty() {
                true => Ok(()),
                false => Err("a preflight is answered with 200 and nothing".to_owned()),
            };
        }
        // The page that shows the document is not in it; its own tests look at it.
        let is_page = path == "/kms/v1/docs" || path.starts_with("/kms/v1/docs/");
        if is_page && self.status.is_success() {
            return Ok(());
        }
        let found = template_of(path).filter(|(_, item)| {
            // The probes are what asks nobody for an identity.
            let is_probe = item
                .get("get")
                .is_some_and(|get| get["security"] == json!([]));
            is_probe || !self.of_operations
        });
        let Some((template, item)) = found else {
            return self.is_refused(404);
        };
        // HEAD is GET without the body (RFC 9110, 9.3.2).
        let method = match *self.method {
            Method::HEAD => "get".to_owned(),
            _ => self.method.as_str().to_lowercase(),
        };
        let Some(operation) = item.get(&method) else {
            self.is_refused(405)?;
            return self.has_header("allow");
        };
        let response = &operation["responses"][self.status.as_str()];
        if response.is_null() {
            return Err("no such status".to_owned());
        }
        self.answers(resolve(response))?;
        if self.status.is_success() {
            self.was_allowed(operation, &template, path)?;
        }
        Ok(())
    }

    /// An answer that no operation has.
    fn is_refused(&self, status: u16) -> Result<(), String> {
        if self.status.as_u16() != status {
            return Err(format!("no such path or method, which is {status}"));
        }
        let mut headers = json!({ "Allow": { "schema": { "type": "string" } } });
        let known = headers.as_object_mut().expect("an object");
        // Every answer's; those of the rates are of known paths.
        let any = &DOCUMENT["paths"]["/health"]["get"]["responses"]["200"]["headers"];
        known.extend(any.as_object().expect("headers").clone());
        self.answers(&json!({
            "headers": headers,
            "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/InvalidRequestError" },
            } },
        }))
    }

    fn answers(&self, response: &Value) -> Result<(), String> {
        self.has_headers(response)?;
        let content = response["content"].as_object().ok_or("no content")?;
        let media_type = self.header("content-type").ok_or("no media type")?;
        let content = content
            .get(media_type)
            .ok_or_else(|| format!("no such media type: {media_type}"))?;
        if media_type != "application/json" || self.method == Method::HEAD {
            return Ok(());
        }
        let body = serde_json::from_slice(self.body).map_err(|_| "no JSON")?;
        is_valid(&content["schema"], &body)
    }

    fn has_headers(&self, response: &Value) -> Result<(), String> {
        let known = response["headers"].as_object().ok_or("no headers")?;
        let mut named: Map<String, Value> = Map::new();
        for (name, header) in known {
            named.insert(name.to_lowercase(), resolve(header).clone());
        }
        for (name, header) in &named {
            match self.header(name) {
                Some(value) => is_valid(&header["schema"], &typed(&header["schema"], value))
                    .map_err(|fault| format!("{name}: {fault}"))?,
                None if header["required"] == true => return Err(format!("no {name}")),
                None => {}
            }
        }
        for name in self.headers.keys() {
            let name = name.as_str();
            // The message's own, which OpenAPI leaves to HTTP.
            let of_http = [
                "content-type",
                "content-length",
                "date",
                "connection",
                "transfer-encoding",
            ];
            if !of_http.contains(&name) && !named.contains_key(name) {
                return Err(format!("an unknown header {name}"));
            }
            if self.headers.get_all(name).iter().count() > 1 && name != "vary" {
                return Err(format!("{name} more than once"));
            }
        }
        Ok(())
    }

    fn has_header(&self, name: &str) -> Result<(), String> {
        self.header(name)
            .map(|_| ())
            .ok_or_else(|| format!("no {name}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What was accepted, the document allows.
    fn was_allowed(
        &self,
        operation: &Value,
        template: &Template,
        path: &str,
    ) -> Result<(), String> {
        let parameters = operation["parameters"].as_array().ok_or("no parameters")?;
        let parameters: Vec<&Value> = parameters.iter().map(resolve).collect();
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let mut asked: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        for parameter in &parameters {
            let name = parameter["name"].as_str().unwrap_or_default();
            let value = match parameter["in"].as_str() {
                Some("query") => {
                    let place = asked.iter().position(|(asked, _)| asked == name);
                    place.map(|place| asked.remove(place).1)
                }
                Some("path") => template.value(path, name),
                _ => continue,
            };
            let Some(value) = value else {
                match parameter["required"] == true {
                    true => return Err(format!("accepted without {name}")),
                    false => continue,
                }
            };
            is_valid(&parameter["schema"], &typed(&parameter["schema"], &value))
                .map_err(|fault| format!("accepted with {name}={value}: {fault}"))?;
        }
        // Where there is a query to read, what is not known in it is refused.
        let reads_query = parameters
            .iter()
            .any(|parameter| parameter["in"] == "query");
        if reads_query && !asked.is_empty() {
            return Err(format!("accepted with {asked:?}"));
        }
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if let (Some(sent), true) = (self.sent, schema.is_object()) {
            let sent = serde_json::from_slice(sent).map_err(|_| "accepted without JSON")?;
            is_valid(schema, &sent).map_err(|fault| format!("accepted with {sent}: {fault}"))?;
        }
        Ok(())
    }
}

/// What a reference leads to, or the value itself.
fn resolve(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("into the document");
            DOCUMENT.pointer(pointer).expect("it leads somewhere")
        }
        None => value,
    }
}

/// A text outside of JSON as the value that its schema speaks of.
fn typed(schema: &Value, text: &str) -> Value {
    match resolve(schema)["type"].as_str() {
        Some("integer") => text
            .parse::<i64>()
            .map_or_else(|_| text.into(), Value::from),
        _ => text.into(),
    }
}

/// A path of the document.
struct Template(&'static str);

impl Template {
    /// Whether a path is one of it. Of a tile the parameter is all that follows.
    fn fits(&self, path: &str) -> bool {
        let parts: Vec<&str> = self.0.split('/').collect();
        let asked: Vec<&str> = path.split('/').collect();
        let is_open = self.0.ends_with("{tile}");
        let has_room = match is_open {
            true => asked.len() >= parts.len(),
            false => asked.len() == parts.len(),
        };
        has_room
            && parts
                .iter()
                .zip(&asked)
                .all(|(part, asked)| match part.starts_with('{') {
                    true => !asked.is_empty(),
                    false => part == asked,
                })
    }

    /// What stands in the place of a parameter.
    fn value(&self, path: &str, name: &str) -> Option<String> {
        let place = self
            .0
            .split('/')
            .position(|part| part == format!("{{{name}}}"))?;
        let part = match name {
            "tile" => path.split('/').skip(place).collect::<Vec<_>>().join("/"),
            _ => path.split('/').nth(place)?.to_owned(),
        };
        Some(unescaped(&part))
    }
}

/// `%2F` is a slash. A plus is one too, which a form would read as a space.
fn unescaped(part: &str) -> String {
    let escaped = format!("x={}", part.replace('+', "%2B"));
    let mut pairs = form_urlencoded::parse(escaped.as_bytes());
    pairs
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

/// The item of the document for a path: that with the fewest parameters.
fn template_of(path: &str) -> Option<(Template, &'static Map<String, Value>)> {
    let paths = DOCUMENT["paths"].as_object()?;
    let fitting = paths
        .iter()
        .filter(|(template, _)| Template(template).fits(path));
    let (template, item) = fitting.min_by_key(|(template, _)| {
        // As the router decides: the first part that differs, and names win.
        let parts = template.split('/').map(|part| part.starts_with('{'));
        parts.collect::<Vec<_>>()
    })?;
    Some((Template(template), item.as_object()?))
}
