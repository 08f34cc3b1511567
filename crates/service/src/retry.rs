//! The one retry policy: exponential backoff with jitter, its numbers a setting.
//!
//! Only idempotent calls may be repeated; every call to an agent is, by its operation id.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder, Retryable};
use tonic::Status;

use crate::error::kind_of;

/// Pauses between attempts: `min`, then twice that, and so on up to `max`, each lengthened by a random
/// part of `min` so that many clients do not return at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First pause.
    pub min: Duration,
    /// Longest pause.
    pub max: Duration,
    /// Repetitions after the first attempt; `None` is without end.
    pub times: Option<usize>,
}

impl Backoff {
    /// For a call another person waits for: 100 ms, 200 ms, 400 ms, then the error.
    pub const CALL: Self = Self {
        min: Duration::from_millis(100),
        max: Duration::from_secs(1),
        times: Some(3),
    };

    /// For a connection that has to come back: 200 ms up to 10 s, without end.
    pub const RECONNECT: Self = Self {
        min: Duration::from_millis(200),
        max: Duration::from_secs(10),
        times: None,
    };

    /// For work that failed: 1 s up to 5 min, without end.
    pub const WORK: Self = Self {
        min: Duration::from_secs(1),
        max: Duration::from_secs(300),
        times: None,
    };

    /// The policy as backon's builder, for its own `.retry(..)`.
    pub fn builder(&self) -> ExponentialBuilder {
        let builder = ExponentialBuilder::new()
            .with_min_delay(self.min)
            .with_max_delay(self.max)
            .with_factor(2.0)
            .with_jitter();
        match self.times {
            Some(times) => builder.with_max_times(times),
            None => builder.without_max_times(),
        }
    }

    /// The pauses one after the other; ends after `times`.
    pub fn pauses(&self) -> ExponentialBackoff {
        self.builder().build()
    }

    /// The pause before repetition number `failures` (1 is the first), without jitter: for times that
    /// are stored, such as retry_at.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.min
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(self.max)
    }

    /// Repeats an idempotent call while its error is retryable (see
    /// [`ErrorKind::is_retryable`](crate::ErrorKind::is_retryable)).
    ///
    /// # Errors
    /// The last error.
    pub async fn call<T, F, Fut>(&self, call: F) -> Result<T, Status>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        call.retry(self.builder())
            .when(|status| kind_of(status).is_retryable())
            .notify(|status, pause| {
                tracing::debug!(code = ?status.code(), ?pause, "retrying: {}", status.message());
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds: Vec<u64> = (0..11).map(|n| Backoff::WORK.after(n).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(Backoff::WORK.after(u32::MAX), Duration::from_secs(300));
        assert_eq!(Backoff::CALL.pauses().count(), 3);
        assert_eq!(Backoff::RECONNECT.pauses().take(1000).count(), 1000);
        for (pause, least) in Backoff::CALL.pauses().zip([100, 200, 400]) {
            assert!(
                pause.as_millis() >= least && pause.as_millis() <= 2 * least,
                "{pause:?}"
            );
        }
    }

    #[tokio::test]
    async fn only_what_may_pass_is_repeated() {
        let attempts = std::cell::Cell::new(0);
        let answer = Backoff::CALL
            .call(|| {
                attempts.set(attempts.get() + 1);
                let n = attempts.get();
                async move {
                    if n < 3 {
                        Err(Status::unavailable("away"))
                    } else {
                        Ok(n)
                    }
                }
            })
            .await;
        assert_eq!(answer.unwrap(), 3);

        attempts.set(0);
        let refused: Result<(), _> = Backoff::CALL
            .call(|| {
                attempts.set(attempts.get() + 1);
                async { Err(Status::invalid_argument("no")) }
            })
            .await;
        assert_eq!(
            (refused.unwrap_err().code(), attempts.get()),
            (tonic::Code::InvalidArgument, 1)
        );
    }
}
