//! How a coordinator is doing, for GetStatus and /readyz.

use std::time::Duration;

use chrono::{DateTime, Utc};
use windlass_proto::{convert, v1};

/// How a coordinator is doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether this process leads.
    pub leader: bool,
    /// Who does, as last seen; empty if nobody.
    pub holder: String,
    /// With which epoch.
    pub epoch: i64,
    /// Passes made by this process.
    pub ticks: u64,
    /// When the last one ended.
    pub last_tick_at: Option<DateTime<Utc>>,
    /// How long it took.
    pub last_tick_duration: Duration,
    /// Why it, or the election, failed; empty if it did not.
    pub last_error: String,
    /// Whether something is in progress.
    pub active: bool,
}

impl From<Status> for v1::GetStatusResponse {
    fn from(s: Status) -> Self {
        let duration = chrono::TimeDelta::from_std(s.last_tick_duration).unwrap_or_default();
        Self {
            status: Some(v1::ServiceStatus {
                leader: s.leader,
                holder: s.holder,
                epoch: s.epoch,
                ticks: s.ticks,
                last_tick_time: s.last_tick_at.map(convert::timestamp),
                last_tick_duration: s.last_tick_at.map(|_| convert::duration(duration)),
                last_error: s.last_error,
                active: s.active,
            }),
        }
    }
}
