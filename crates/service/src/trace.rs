//! Traces: what one user's request led to, across api, wc, agent and observer.
//!
//! Every span of Windlass is an ordinary `tracing` span, which the log shows anyway. When an OTLP endpoint is
//! configured ([`crate::export`]), those that belong to a sampled trace are also exported. A trace begins with a
//! user's call ([`GrpcServer::starts_traces`](crate::GrpcServer::starts_traces)) or comes with one
//! (`traceparent`, W3C Trace Context); nothing else begins one, so that timers and background calls leave no
//! spans. Invariant: with tracing off every function here is one relaxed load.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, Value};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header (and gRPC metadata key) that carries a trace from process to process.
pub const HEADER: &str = "traceparent";

static ON: AtomicBool = AtomicBool::new(false);

/// Whether this process exports traces.
#[inline]
pub fn enabled() -> bool {
    ON.load(Ordering::Relaxed)
}

pub(crate) fn enable() {
    ON.store(true, Ordering::Relaxed);
}

/// In a context without a span: a trace may begin here.
#[derive(Debug)]
pub(crate) struct UserCall;

/// A place in a sampled trace. Its text is a W3C `traceparent` of 55 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(SpanContext);

impl TraceContext {
    /// Where the running code is; `None` when it is in no sampled trace, or tracing is off.
    pub fn current() -> Option<Self> {
        if !enabled() {
            return None;
        }
        Self::sampled(Context::current().span().span_context())
    }

    /// Where `span` is.
    pub fn of(span: &Span) -> Option<Self> {
        if !enabled() {
            return None;
        }
        Self::sampled(span.context().span().span_context())
    }

    fn sampled(context: &SpanContext) -> Option<Self> {
        (context.is_valid() && context.is_sampled()).then(|| Self(context.clone()))
    }

    fn incoming(headers: &HeaderMap) -> Option<Self> {
        headers.get(HEADER)?.to_str().ok()?.parse().ok()
    }

    fn remote(&self) -> Context {
        Context::new().with_remote_span_context(self.0.clone())
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.0.trace_id(),
            self.0.span_id(),
            self.0.trace_flags() & TraceFlags::SAMPLED
        )
    }
}

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct NotAContext;

impl FromStr for TraceContext {
    type Err = NotAContext;

    /// Reads version 00, and of later versions what version 00 knows, as the standard says. `tracestate` and
    /// baggage are not taken over: they are a caller's text, and would be stored and sent on.
    fn from_str(text: &str) -> Result<Self, NotAContext> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            parts
                .next()
                .filter(|part| part.len() == digits && part.bytes().all(is_lower_hex))
                .ok_or(NotAContext)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(NotAContext);
        }
        let flags = u8::from_str_radix(flags, 16).map_err(|_| NotAContext)?;
        let context = SpanContext::new(
            TraceId::from_hex(trace).map_err(|_| NotAContext)?,
            SpanId::from_hex(span).map_err(|_| NotAContext)?,
            TraceFlags::new(flags) & TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        context
            .is_valid()
            .then_some(Self(context))
            .ok_or(NotAContext)
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Makes `span`, which has no parent and was not entered yet, a child of `parent`, and tells the log its trace
/// where it has a field `trace_id`.
pub fn join(span: &Span, parent: &TraceContext) {
    if enabled() {
        adopt(span, parent.remote());
    }
}

/// Gives an exported span a name of its own; the log keeps the short one.
pub fn name(span: &Span, name: impl Into<Cow<'static, str>>) {
    if enabled() {
        span.context().span().update_name(name);
    }
}

/// Adds an attribute to an exported span; the log does not show it.
pub fn attribute(span: &Span, key: &'static str, value: impl Into<Value>) {
    if enabled() {
        span.set_attribute(key, value);
    }
}

/// Marks an exported span as failed.
pub fn failed(span: &Span, why: impl Into<Cow<'static, str>>) {
    if enabled() {
        span.set_status(Status::error(why));
    }
}

fn adopt(span: &Span, parent: Context) {
    // Only a span that the exporter does not see, or one that is running, has no place for a parent.
    if span.set_parent(parent).is_ok()
        && let Some(context) = TraceContext::of(span)
    {
        span.record("trace_id", tracing::field::display(context.0.trace_id()));
    }
}

/// The span of a call that came in: part of the caller's trace, or the beginning of one.
pub(crate) fn incoming(span: &Span, method: &str, begins: bool, headers: &HeaderMap) {
    if !enabled() {
        return;
    }
    let parent = match TraceContext::incoming(headers) {
        Some(caller) => caller.remote(),
        None if begins => Context::new().with_value(UserCall),
        None => return,
    };
    span.record("otel.kind", "server");
    rpc(span, method);
    adopt(span, parent);
    name(span, method.to_owned());
}

/// The span of a call that goes out, and the header to send with it.
pub(crate) fn outgoing(span: &Span, method: &str) -> Option<HeaderValue> {
    span.record("otel.kind", "client");
    rpc(span, method);
    name(span, method.to_owned());
    HeaderValue::from_str(&TraceContext::of(span)?.to_string()).ok()
}

/// How a call ended. `fault`: whether that is an error of the side the span is of.
pub(crate) fn answered(span: &Span, code: tonic::Code, fault: bool) {
    attribute(span, "rpc.grpc.status_code", code as i64);
    if fault {
        failed(span, code.description());
    }
}

/// The attributes of OpenTelemetry's conventions for RPC.
fn rpc(span: &Span, method: &str) {
    let (service, method) = method.rsplit_once('/').unwrap_or(("", method));
    attribute(span, "rpc.system", "grpc");
    attribute(span, "rpc.service", service.to_owned());
    attribute(span, "rpc.method", method.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_as_the_standard_says() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert!(context.0.is_remote() && context.0.is_sampled());
        let unsampled: TraceContext = GOOD.replace("-01", "-00").parse().unwrap();
        assert!(!unsampled.0.is_sampled());
        // A later version may say more; what is known of it is used.
        let later = GOOD.replacen("00", "cc", 1) + "-what-the-future-will-be-like";
        assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), GOOD);
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(wrong.parse::<TraceContext>(), Err(NotAContext), "{wrong:?}");
        }
    }

    #[test]
    fn nothing_is_in_a_trace_when_tracing_is_off() {
        assert!(!enabled());
        let span = tracing::info_span!("x", trace_id = tracing::field::Empty);
        join(&span, &GOOD.parse().unwrap());
        assert_eq!(TraceContext::of(&span), None);
        assert_eq!(TraceContext::current(), None);
    }
}
