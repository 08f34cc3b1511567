//! The agent against a real engine and a real S3 store. Needs root, and an engine at DOCKER_HOST or the
//! system's socket; without one the tests fail and say so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod away;
mod changes;
mod checkpoints;
mod crashes;
mod faults;
mod fencing;
mod follow;
mod harness;
mod lifecycle;
mod readers;
mod safety;
mod sharing;
mod starting;
mod store;
mod wire;
