//! PostgreSQL, and nothing of it leaks out: the schema is private, reads return domain values, and each
//! service has one module with the writes its role is granted.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod audit;
mod error;
mod leader;
mod migrate;
mod notify;
mod pool;
mod prepared;
mod rows;
mod schema;
mod statements;

pub mod read;
pub mod write;

pub use audit::AuditEntry;
pub use error::{DbError, DbErrorKind};
pub use leader::{Candidacy, LeaderRow, Lease, Roster, ShardLease};
pub use migrate::{Bootstrap, migrate};
pub use notify::{Channel, Listener};
pub use pool::Pool;
pub use rows::{HostRecord, UserRecord, WorkspaceRecord};
pub use statements::statements;
