//! The real server on a free port against a real PostgreSQL, through the generated client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archives;
mod auth;
mod change;
mod common;
mod create;
mod hosts;
mod limits;
mod list;
mod outage;
mod read;
mod restore;
mod watch;
