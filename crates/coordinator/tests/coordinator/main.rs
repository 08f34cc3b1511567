//! The loop of a coordinator against a real PostgreSQL and Redis: one leader, passes by the clock, on hints
//! and on request, and a database that goes away and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod hints;
mod leading;
mod pace;
mod redis_link;
mod shards;
