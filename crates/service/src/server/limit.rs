//! One limit on calls in progress over all connections; what is over it is shed at once, not queued,
//! so that a flood is answered quickly instead of making every call late.
//!
//! A call counts until its answer is complete. Long-lived streams count only until they are open (they
//! would use the limit up by waiting), and health and reflection never.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::Semaphore;

use super::guard::hold_until_end;
use super::methods::Method;
use crate::error::{ErrorKind, OVERLOADED, refuse};

/// The limit; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    permits: Arc<Semaphore>,
}

impl Limit {
    pub(super) fn new(calls: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(calls.min(Semaphore::MAX_PERMITS))),
        }
    }
}

pub(super) async fn limit(State(limit): State<Limit>, request: Request, next: Next) -> Response {
    let method = Method::of(&request);
    if method.open {
        return next.run(request).await;
    }
    let Ok(permit) = limit.permits.try_acquire_owned() else {
        return refuse(
            ErrorKind::ResourceExhausted,
            OVERLOADED,
            "too many calls in progress; try again later",
        )
        .into_http();
    };
    let response = next.run(request).await;
    if method.long_lived {
        drop(permit);
        response
    } else {
        hold_until_end(response, permit)
    }
}
