//! Every call leaves a count, a duration and one log event with its code; and a span, if it is part of a
//! trace.
//!
//! The code of a stream is known when its trailers pass, so the record is written when the body ends;
//! a client that goes away first is CANCELLED.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use metrics::Label;
use tonic::Code;
use tracing::field::Empty;
use tracing::{Instrument, Level, Span};

use super::methods::Method;
use crate::trace;

pub(super) async fn record(
    State(starts_traces): State<bool>,
    request: Request,
    next: Next,
) -> Response {
    let method = Method::of(&request);
    let span = if method.open {
        tracing::debug_span!("grpc", method = &*method.name)
    } else {
        tracing::info_span!(
            "grpc",
            method = &*method.name,
            trace_id = Empty,
            workspace_id = Empty,
            otel.kind = Empty
        )
    };
    let begins = starts_traces && !method.open && !method.long_lived;
    trace::incoming(&span, &method.name, begins, request.headers());
    let mut call = Call {
        labels: method.labels,
        quiet: method.open,
        started: Instant::now(),
        code: Code::Cancelled,
        span: span.clone(),
    };
    metrics::gauge!("windlass_rpc_in_flight").increment(1.0);
    let response = next.run(request).instrument(span).await;
    if let Some(code) = code_of(response.headers()) {
        call.code = code;
    }
    response.map(|inner| Body::new(Recorded { inner, call }))
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// A call in progress; it is recorded when this is dropped, however the call ended.
struct Call {
    labels: [Label; 2],
    quiet: bool,
    started: Instant,
    code: Code,
    span: Span,
}

impl Drop for Call {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let code = name(self.code);
        let [service, method] = self.labels.clone();
        metrics::gauge!("windlass_rpc_in_flight").decrement(1.0);
        metrics::histogram!(
            "windlass_rpc_duration_seconds",
            vec![service.clone(), method.clone()]
        )
        .record(seconds);
        let labels = vec![service, method, Label::from_static_parts("code", code)];
        metrics::counter!("windlass_rpc_requests_total", labels).increment(1);
        trace::answered(
            &self.span,
            self.code,
            level(self.code, false) == Level::WARN,
        );
        let _entered = self.span.enter();
        match level(self.code, self.quiet) {
            Level::WARN => tracing::warn!(code, seconds, "call"),
            Level::INFO => tracing::info!(code, seconds, "call"),
            _ => tracing::debug!(code, seconds, "call"),
        }
    }
}

fn level(code: Code, quiet: bool) -> Level {
    match code {
        // What goes well is counted, not told: the loops call each other every second.
        _ if quiet => Level::DEBUG,
        Code::Ok => Level::DEBUG,
        Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded => Level::WARN,
        _ => Level::INFO,
    }
}

struct Recorded {
    inner: Body,
    call: Call,
}

impl http_body::Body for Recorded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _entered = this.call.span.enter();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(code) = frame.trailers_ref().and_then(code_of)
        {
            this.call.code = code;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The code as the gRPC specification spells it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
