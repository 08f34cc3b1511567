//! Every call ends with a grpc-status: a panic is INTERNAL, a passed deadline DEADLINE_EXCEEDED, and a
//! stream without end is ended with UNAVAILABLE when the server drains.
//!
//! The same three hold before the first answer (the handler's future) and after it (the body of a
//! stream), so that a client never has to guess from a broken connection. tonic's own timeout answers
//! CANCELLED; ours is a little shorter than the client's, so that it comes first.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::methods::Method;
use crate::error::{DEADLINE, DRAINING, ErrorKind, internal, refuse};

/// What bounds every call.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    longest: Duration,
    drain: CancellationToken,
}

impl Bounds {
    pub(super) fn new(longest: Duration, drain: CancellationToken) -> Self {
        // Told from the start: an alert looks for an increase.
        metrics::counter!("windlass_rpc_panics_total").increment(0);
        Self { longest, drain }
    }
}

pub(super) async fn guard(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let method = Method::of(&request);
    let asked = grpc_timeout(request.headers());
    let allowed = if method.long_lived {
        asked
    } else {
        Some(asked.map_or(bounds.longest, |asked| asked.min(bounds.longest)))
    };
    let mut end = End {
        deadline: allowed
            .and_then(|allowed| Instant::now().checked_add(allowed))
            .map(|at| Box::pin(tokio::time::sleep_until(at))),
        drain: method
            .long_lived
            .then(|| Box::pin(bounds.drain.cancelled_owned())),
    };
    let called = AssertUnwindSafe(next.run(request)).catch_unwind();
    tokio::select! {
        biased;
        answered = called => match answered {
            Ok(response) => response.map(|inner| Body::new(GuardedBody { inner: Some(inner), end, last: None })),
            Err(panic) => panicked(panic.as_ref()).into_http(),
        },
        status = poll_fn(|cx| end.poll(cx)) => status.into_http(),
    }
}

/// The client's deadline, less a little for the way back: how long a handler may take that rather tells
/// less than nothing. `None` where the client set none. Malformed values count as none.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    Some(timeout - (timeout / 10).min(Duration::from_millis(50)))
}

/// What can end a call from outside.
#[derive(Debug)]
struct End {
    deadline: Option<Pin<Box<Sleep>>>,
    drain: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl End {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(refuse(
                ErrorKind::DeadlineExceeded,
                DEADLINE,
                "the call took longer than its deadline",
            ));
        }
        if let Some(drain) = &mut self.drain
            && drain.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(refuse(
                ErrorKind::Unavailable,
                DRAINING,
                "the server is stopping; resume with another call",
            ));
        }
        Poll::Pending
    }
}

/// The hook has logged where; this ties it to the call's span.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Status {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a text");
    metrics::counter!("windlass_rpc_panics_total").increment(1);
    internal(format_args!("a method panicked: {text}"))
}

/// A response body that ends with a status in any case.
struct GuardedBody {
    inner: Option<Body>,
    end: End,
    last: Option<Status>,
}

impl GuardedBody {
    fn finish(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.inner = None;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(status)))))
    }
}

/// A status as trailers. One whose message cannot stand in a header is sent as its code alone.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return match this.last.take() {
                Some(status) => this.finish(&status),
                None => Poll::Ready(None),
            };
        };
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll_frame(cx)));
        match polled {
            Ok(Poll::Ready(frame)) => {
                let ended = !matches!(&frame, Some(Ok(frame)) if !frame.is_trailers());
                if ended {
                    this.inner = None;
                } else if let Poll::Ready(status) = this.end.poll(cx) {
                    // A handler that always has more must not outrun its end; what it has given is
                    // still sent.
                    this.inner = None;
                    this.last = Some(status);
                }
                Poll::Ready(frame)
            }
            Ok(Poll::Pending) => match this.end.poll(cx) {
                Poll::Ready(status) => this.finish(&status),
                Poll::Pending => Poll::Pending,
            },
            Err(panic) => this.finish(&panicked(panic.as_ref())),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.is_end_stream(),
            None => self.last.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Keeps `held` until the response's body is complete or dropped.
pub(super) fn hold_until_end<T: Send + Unpin + 'static>(response: Response, held: T) -> Response {
    response.map(|inner| {
        Body::new(Holding {
            inner,
            held: Some(held),
        })
    })
}

struct Holding<T> {
    inner: Body,
    held: Option<T>,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.held = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_deadline_is_read_as_grpc_says() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&headers)
        };
        assert_eq!(parse("1S"), Some(Duration::from_millis(950)));
        assert_eq!(parse("10m"), Some(Duration::from_millis(9)));
        assert_eq!(
            parse("99999999H").map(|d| d.as_secs()),
            Some(99_999_999 * 3600 - 1)
        );
        assert_eq!(parse("0S"), Some(Duration::ZERO));
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1 S"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
