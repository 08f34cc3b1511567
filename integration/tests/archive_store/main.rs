//! The archive store's promises, kept over two S3 servers that share no code: the embedded one and moto.
//!
//! - `server`: the servers, and going there and back
//! - `promises`: each over both servers
//! - `environment`: what comes from the environment of a process, each in one of its own
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod environment;
#[path = "../../../crates/archive/tests/common/everything.rs"]
mod everything;
mod promises;
mod server;
#[path = "../../../crates/archive/tests/common/tree.rs"]
mod tree;
