//! What observer, wc, ttl and gc share. Each of them is a [`Pass`]: load, decide, act. [`Coordinator`]
//! elects one leader among the replicas and makes passes: by the clock, at once on a hint, and on
//! request. A wake, a timer and a restart run the same code; only the clock is needed for correctness.
//! [`serve`] makes a running service of it. observer and wc may be divided into shards: then there is a
//! leader, and a pass, for each.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod agents;
pub mod config;
mod coordinator;
mod election;
pub mod grpc;
pub mod hints;
mod redis_link;
mod run;
mod serve;
mod status;

pub use agents::{AgentClient, Agents};
pub use config::{CoordinatorArgs, DatabaseUrl, PeriodArgs, RedisUrl, ServiceToken, ShardArgs};
pub use coordinator::{Coordinator, Handle};
pub use hints::{Hints, Waker};
pub use redis_link::RedisLink;
pub use run::{Pass, PassError, Periods, Refusal, RunError, Verdict};
pub use serve::{Setup, serve};
pub use status::{ShardLeader, Status};
pub use windlass_db::{Channel, Lease};
