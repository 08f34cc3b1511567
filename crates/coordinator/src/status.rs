//! How a coordinator is doing, for GetStatus and /readyz.

use std::time::Duration;

use chrono::{DateTime, Utc};
use windlass_db::Lease;
use windlass_proto::{convert, v1};

use crate::election::View;

/// How one shard's loop is doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoopStatus {
    /// The lease it makes passes under.
    pub lease: Option<Lease>,
    pub ticks: u64,
    pub last_tick_at: Option<DateTime<Utc>>,
    pub last_tick_duration: Duration,
    pub last_error: String,
    pub active: bool,
}

/// Who leads a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardLeader {
    /// Whether this process does.
    pub here: bool,
    /// Who does, as last seen; empty if nobody.
    pub holder: String,
    /// With which epoch.
    pub epoch: i64,
}

/// How a coordinator is doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether this process leads; with shards, at least one.
    pub leader: bool,
    /// Who does, as last seen; empty if nobody. With shards, this process if it leads any, else who leads
    /// the first.
    pub holder: String,
    /// With which epoch; with shards, the highest of that holder.
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
    /// Who leads each shard.
    pub shards: Vec<ShardLeader>,
}

impl Status {
    pub(crate) fn of(loops: &[LoopStatus], view: &View) -> Self {
        let shards: Vec<ShardLeader> = loops
            .iter()
            .enumerate()
            .map(|(n, one)| match (&one.lease, view.roster.leases.get(n)) {
                (Some(lease), _) => ShardLeader {
                    here: true,
                    holder: lease.holder.clone(),
                    epoch: lease.epoch.0,
                },
                (None, Some(seen)) => ShardLeader {
                    here: false,
                    holder: seen.holder.clone(),
                    epoch: seen.epoch,
                },
                (None, None) => ShardLeader::default(),
            })
            .collect();
        let led = shards.iter().filter(|s| s.here).max_by_key(|s| s.epoch);
        let shown = led.or(shards.first()).cloned().unwrap_or_default();
        let last = loops.iter().max_by_key(|l| l.last_tick_at);
        let errors = loops.iter().map(|l| &l.last_error).chain([&view.error]);
        Self {
            leader: shown.here,
            holder: shown.holder,
            epoch: shown.epoch,
            ticks: loops.iter().map(|l| l.ticks).sum(),
            last_tick_at: last.and_then(|l| l.last_tick_at),
            last_tick_duration: last.map(|l| l.last_tick_duration).unwrap_or_default(),
            last_error: errors
                .into_iter()
                .find(|e| !e.is_empty())
                .cloned()
                .unwrap_or_default(),
            active: loops.iter().any(|l| l.active),
            shards,
        }
    }
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
                shards: s
                    .shards
                    .into_iter()
                    .map(|shard| v1::ShardStatus {
                        leader: shard.here,
                        holder: shard.holder,
                        epoch: shard.epoch,
                    })
                    .collect(),
            }),
        }
    }
}
