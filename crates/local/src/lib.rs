//! What Windlass needs around it on one machine, started privately: PostgreSQL, Redis, a Docker engine, a
//! demo image, and the processes of Windlass itself.
//!
//! `windlass up` and the tests share it. Everything listens on 127.0.0.1 or a Unix socket only, keeps its
//! files in folders the caller gives, can be killed at any point and started again from the same folder,
//! and on request dies with the process that started it.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod docker;
pub mod image;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod supervisor;

mod error;
mod find;
mod proc_fs;

pub use error::Error;
