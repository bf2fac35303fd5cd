//! One operation: what it takes, what it answers, how it may fail.

use std::collections::BTreeMap;

use axum::http::{Method, StatusCode};
use serde_json::Value;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation as Documented, OperationBuilder, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, Ref, RefOr, Required, Response, Schema};

use super::describe::{Described, DescribedObject, Schemas};
use super::envelope::envelope;
use super::{examples, failures, headers};
use crate::domain::error::{ErrorCode, KmsError};
use crate::http::error::{retry_after_seconds, status};
use failures::Failure;

/// The responses that have names.
pub(super) type Responses = BTreeMap<String, Response>;

/// How a schema is made.
type Make = fn(&mut Schemas) -> RefOr<Schema>;

/// The media type of almost everything.
pub(super) const JSON: &str = "application/json";

/// An operation on its way into the document.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    about: &'static str,
    in_path: Option<InPath>,
    queries: Vec<fn(&mut Schemas) -> Vec<ParameterBuilder>>,
    body: Option<Make>,
    answer: Answer,
    failures: Vec<Failure>,
    reads_approval: bool,
    has_caller: bool,
    cache: &'static str,
    unhealthy: Option<Make>,
}

/// What a part of the path stands for.
struct InPath {
    name: &'static str,
    about: &'static str,
    schema: Make,
}

struct Answer {
    status: StatusCode,
    media_type: &'static str,
    schema: Make,
}

impl Operation {
    /// An operation that answers this object.
    pub(super) fn new<A: Described>(
        tag: &'static str,
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            tag,
            summary,
            about: "",
            in_path: None,
            queries: Vec::new(),
            body: None,
            answer: Answer {
                status: StatusCode::OK,
                media_type: JSON,
                schema: A::schema,
            },
            failures: failures::of_any_caller(),
            reads_approval: false,
            has_caller: true,
            cache: headers::NO_STORE,
            unhealthy: None,
        }
    }

    /// More about it.
    pub(super) fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// It takes what is in the path: which is this.
    pub(super) fn in_path<T: Described>(mut self, name: &'static str, about: &'static str) -> Self {
        self.in_path = Some(InPath {
            name,
            about,
            schema: T::schema,
        });
        self
    }

    /// It takes a body of this schema.
    pub(super) fn body(mut self, schema: Make) -> Self {
        self.body = Some(schema);
        self.failures.extend(failures::of_a_body());
        self
    }

    /// It takes the fields of this object in the query.
    pub(super) fn query<T: DescribedObject>(mut self) -> Self {
        self.queries.push(in_query::<T>);
        self.failures.extend(failures::of_a_query());
        self
    }

    /// It may need a second person, whose word may come in the header.
    pub(super) fn approvable(mut self) -> Self {
        self.reads_approval = true;
        self.failures.extend(failures::of_an_approval());
        self
    }

    /// It concerns a scope.
    pub(super) fn scoped(self) -> Self {
        self.fails(failures::of_a_scope())
    }

    /// It fails in these ways too.
    pub(super) fn fails(mut self, failures: Vec<Failure>) -> Self {
        self.failures.extend(failures);
        self
    }

    /// Its success has another status.
    pub(super) fn answers_with(mut self, status: StatusCode) -> Self {
        self.answer.status = status;
        self
    }

    /// Its answer is no JSON.
    pub(super) fn of_media_type(mut self, media_type: &'static str) -> Self {
        self.answer.media_type = media_type;
        self
    }

    /// Its answer may be kept.
    pub(super) fn immutable(mut self) -> Self {
        self.cache = headers::IMMUTABLE;
        self
    }

    /// It asks nobody who they are, counts nobody, and fails by a fault of ours only.
    pub(super) fn for_anybody(mut self) -> Self {
        self.has_caller = false;
        self.failures = vec![("internal", KmsError::internal(""))];
        self
    }

    /// Where it is 503 it answers this all the same.
    pub(super) fn unhealthy<T: Described>(mut self) -> Self {
        self.unhealthy = Some(T::schema);
        self
    }

    /// The path's item, by its method.
    pub(super) fn http_method(&self) -> HttpMethod {
        match self.method {
            Method::POST => HttpMethod::Post,
            Method::PATCH => HttpMethod::Patch,
            Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Get,
        }
    }

    /// Writes it down. What fails in the same way in several operations goes into
    /// `responses`, once.
    pub(super) fn document(self, schemas: &mut Schemas, responses: &mut Responses) -> Documented {
        let mut operation = OperationBuilder::new()
            .tag(self.tag)
            .operation_id(Some(self.id))
            .summary(Some(self.summary))
            .description((!self.about.is_empty()).then_some(self.about));
        if let Some(InPath {
            name,
            about,
            schema,
        }) = self.in_path
        {
            let parameter = ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some(about))
                .schema(Some(schema(schemas)));
            operation = operation.parameter(parameter);
        }
        for query in &self.queries {
            for parameter in query(schemas) {
                operation = operation.parameter(parameter);
            }
        }
        let mut read = vec!["traceparent"];
        if self.has_caller {
            read.push("X-Module-Id");
        }
        if self.reads_approval {
            read.push("X-Approval-Token");
        }
        for name in read {
            operation = operation.parameter_ref(headers::parameter(name));
        }
        if let Some(body) = self.body {
            let content = with_example(body(schemas), examples::request(self.id));
            let body = RequestBodyBuilder::new()
                .content(JSON, content)
                .required(Some(Required::True));
            operation = operation.request_body(Some(body.build()));
        }
        if !self.has_caller {
            operation = operation.securities(Some(Vec::<SecurityRequirement>::new()));
        }
        let answer = self.answer(schemas);
        operation = operation.response(self.answer.status.as_str(), answer);
        for (status, name, response) in self.failing(schemas) {
            let reference = Ref::from_response_name(&name);
            responses.insert(name, response.build());
            operation = operation.response(status.as_str(), reference);
        }
        if let Some(schema) = self.unhealthy {
            let response = ResponseBuilder::new()
                .description("It is not fit to serve.")
                .content(JSON, Content::new(Some(schema(schemas))));
            let response = self.with_headers(response, headers::NO_STORE);
            operation = operation.response(StatusCode::SERVICE_UNAVAILABLE.as_str(), response);
        }
        operation.build()
    }

    fn answer(&self, schemas: &mut Schemas) -> ResponseBuilder {
        let schema = (self.answer.schema)(schemas);
        let content = with_example(schema, examples::answer(self.id));
        let about = "It was done.";
        let response = ResponseBuilder::new()
            .description(about)
            .content(self.answer.media_type, content);
        self.with_headers(response, self.cache)
    }

    /// By status, each with a name that says what can be the matter.
    fn failing(&self, schemas: &mut Schemas) -> Vec<(StatusCode, String, ResponseBuilder)> {
        let mut by_status: BTreeMap<StatusCode, Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            by_status
                .entry(status(&failure.1))
                .or_default()
                .push(failure);
        }
        let mut responses = Vec::new();
        for (status, failures) in by_status {
            let mut codes: Vec<ErrorCode> = Vec::new();
            let mut content = ContentBuilder::new();
            for (name, failure) in &failures {
                if !codes.contains(&failure.code()) {
                    codes.push(failure.code());
                }
                let example = ExampleBuilder::new().value(Some(failures::example(failure)));
                content = content.examples_from_iter([(*name, example.build())]);
            }
            let envelopes = codes.iter().map(|code| envelope(*code, schemas));
            let content = content.schema(Some(either(envelopes.collect()))).build();
            let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
            let mut response = ResponseBuilder::new()
                .description(format!("`{}`", names.join("`, `")))
                .content(JSON, content);
            response = self.with_headers(response, headers::NO_STORE);
            if failures
                .iter()
                .all(|(_, failure)| retry_after_seconds(failure).is_some())
            {
                response =
                    response.header_ref(headers::RETRY_AFTER, headers::named(headers::RETRY_AFTER));
            }
            if codes.contains(&ErrorCode::Unauthenticated) {
                response =
                    response.header_ref(headers::CHALLENGE, headers::named(headers::CHALLENGE));
            }
            let mut name: Vec<&str> = vec![status.as_str()];
            name.extend(failures.iter().map(|(name, _)| *name));
            if !self.has_caller {
                name.push("anybody");
            }
            responses.push((status, name.join("-"), response));
        }
        responses
    }

    fn with_headers(&self, mut response: ResponseBuilder, cache: &str) -> ResponseBuilder {
        response = response.header_ref(headers::NO_STORE, headers::named(cache));
        for name in headers::hardening() {
            response = response.header_ref(name.clone(), headers::named(&name));
        }
        let mut names: Vec<&str> = headers::OF_EVERY_ANSWER.to_vec();
        names.extend(headers::SOMETIMES);
        if self.has_caller {
            names.extend(headers::OF_A_LIMITED_ANSWER);
        }
        for name in names {
            response = response.header_ref(name, headers::named(name));
        }
        response
    }
}

/// The fields of an object as parameters. In a query there is no `null`.
fn in_query<T: DescribedObject>(schemas: &mut Schemas) -> Vec<ParameterBuilder> {
    let fields = T::fields(schemas).into_iter();
    fields
        .map(|field| {
            ParameterBuilder::new()
                .name(field.name)
                .parameter_in(ParameterIn::Query)
                .required(match field.is_optional {
                    true => Required::False,
                    false => Required::True,
                })
                .description(Some(field.about))
                .schema(Some(field.schema))
        })
        .collect()
}

fn with_example(schema: RefOr<Schema>, example: Option<Value>) -> Content {
    let content = ContentBuilder::new().schema(Some(schema));
    content.example(example).build()
}

/// One of these schemas.
fn either(mut schemas: Vec<RefOr<Schema>>) -> RefOr<Schema> {
    match schemas.len() {
        1 => schemas.remove(0),
        _ => {
            let one_of = schemas
                .into_iter()
                .fold(OneOfBuilder::new(), OneOfBuilder::item);
            Schema::from(one_of).into()
        }
    }
}
