//! Calls made within a trace carry it on, and are spans of it. All others pass untouched.

use std::task::{Context, Poll};

use futures::future::{BoxFuture, Either};
use http::{Request, Response};
use tonic::Code;
use tonic::body::Body;
use tower::Service;
use tracing::{Instrument, field::Empty};

use crate::trace::{self, TraceContext};

/// Wraps a client's transport.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
}

impl<S> Traced<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, R> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if TraceContext::current().is_none() {
            return Either::Left(self.inner.call(request));
        }
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let span = tracing::info_span!("call", method, otel.kind = Empty);
        if let Some(header) = trace::outgoing(&span, &method) {
            request.headers_mut().insert(trace::HEADER, header);
        }
        let answered = span.clone();
        let call = self.inner.call(request);
        let call = async move {
            let result = call.await;
            // What ends a stream is not seen here; a call that failed at once says so in its headers.
            let code = match &result {
                Ok(response) => code_of(response).unwrap_or(Code::Ok),
                Err(_) => Code::Unavailable,
            };
            trace::answered(&answered, code, code != Code::Ok);
            result
        };
        Either::Right(Box::pin(call.instrument(span)))
    }
}

fn code_of<R>(response: &Response<R>) -> Option<Code> {
    let status = response.headers().get("grpc-status")?;
    Some(Code::from_bytes(status.as_bytes()))
}
