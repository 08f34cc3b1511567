//! Everything of `windlass-db` against a real PostgreSQL, each test with a cluster of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attention;
mod changes;
mod common;
mod compatible;
mod control;
mod gc;
mod grants;
mod leader;
mod lists;
mod migrate;
mod observation;
mod order;
mod rebuild;
mod ttl;
mod watch;
mod wishes;
