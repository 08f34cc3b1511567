//! The numbers that judge and planner go by.

use chrono::TimeDelta;

/// Limits and periods of wc. The defaults are those of the design.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row that end in ERROR.
    pub max_retries: u32,
    /// Time limit of an operation; for archiving and restoring, the time without progress.
    pub operation_timeout: TimeDelta,
    /// Wait after the first failure; it doubles with each.
    pub backoff_base: TimeDelta,
    /// The longest wait.
    pub backoff_max: TimeDelta,
    /// An observation of a host older than this starts nothing.
    pub stale_after: TimeDelta,
    /// A container that was ready this long is forgiven its earlier failures.
    pub stable_after: TimeDelta,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            operation_timeout: TimeDelta::minutes(10),
            backoff_base: TimeDelta::seconds(1),
            backoff_max: TimeDelta::minutes(5),
            stale_after: TimeDelta::seconds(60),
            stable_after: TimeDelta::seconds(60),
        }
    }
}

impl Policy {
    /// The wait after the `failures`-th failure in a row: base doubling up to max, plus up to a quarter
    /// of it as jitter. `seed` is any number that differs between workspaces.
    pub fn backoff(&self, failures: u32, seed: u128) -> TimeDelta {
        let doublings = failures.saturating_sub(1).min(20);
        let wait = (self.backoff_base * (1 << doublings)).min(self.backoff_max);
        // The remainder is below 256, so the cast loses nothing.
        wait + wait / 1024 * (seed % 256) as i32
    }
}
