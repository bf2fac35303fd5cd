//! The form that most layers have: something on a request's way in, something on
//! its answer's way out.
//!
//! A layer of this form holds the service behind it as it is. It is not copied
//! for each request, as it would be behind `axum::middleware::from_fn`: with eight
//! layers those copies cost more than everything that the layers do.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use tower::{Layer, Service};

/// What a layer answers in the end.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// What one layer does around the rest.
pub(crate) trait Around: Clone + Send + Sync + 'static {
    /// What the way out has to know of the way in. It is dropped with the request
    /// where the caller goes away.
    type Passage: Send + 'static;

    /// Lets a request pass, or answers it here.
    fn enter(&self, request: &mut Request) -> ControlFlow<Response, Self::Passage>;

    /// What becomes of the answer.
    fn leave(&self, _passage: Self::Passage, response: Response) -> Response {
        response
    }
}

/// The layer of an [`Around`].
#[derive(Clone)]
pub(crate) struct AroundLayer<A>(pub(crate) A);

impl<A: Around, S> Layer<S> for AroundLayer<A> {
    type Service = Surrounded<A, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Surrounded {
            around: self.0.clone(),
            inner,
        }
    }
}

/// A service with an [`Around`] around it.
#[derive(Clone)]
pub(crate) struct Surrounded<A, S> {
    around: A,
    inner: S,
}

impl<A, S> Service<Request> for Surrounded<A, S>
where
    A: Around,
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Answering {
        match self.around.enter(&mut request) {
            ControlFlow::Continue(passage) => {
                let around = self.around.clone();
                let answering = self.inner.call(request);
                Box::pin(async move {
                    let Ok(response) = answering.await;
                    Ok(around.leave(passage, response))
                })
            }
            ControlFlow::Break(response) => Box::pin(std::future::ready(Ok(response))),
        }
    }
}
