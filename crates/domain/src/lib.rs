//! The pure core of Windlass: what states exist, how they are judged from what was observed, and what
//! is to be done next. Nothing here does I/O or reads a clock; `now` and new ids are arguments, so that
//! every rule can be checked exhaustively.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod attention;
pub mod conditions;
pub mod control;
pub mod error_reason;
pub mod explain;
pub mod gc;
pub mod home;
pub mod ids;
pub mod judge;
pub mod names;
pub mod observation;
pub mod phase;
pub mod planner;
pub mod policy;
pub mod queue;
pub mod recover;
pub mod shard;
pub mod ttl;

pub use conditions::{Condition, ConditionStatus, Conditions};
pub use control::{Control, Freshness, RestoreWish, Spec, Workspace};
pub use error_reason::ErrorReason;
pub use home::{Home, HomeLocation};
pub use ids::{Epoch, HostId, OpId, UserId, VolumeId, WorkspaceId};
pub use phase::{DesiredState, Operation, Phase};
pub use policy::Policy;
pub use shard::Shard;
