//! What every Windlass server shares, so that a service's own crate holds only what is its own.
//!
//! A service is a function `run(config, listener, shutdown)`; its `main.rs` hands that function to
//! [`main`], which parses the configuration, starts logging and metrics, binds the listener and turns
//! SIGTERM and SIGINT into a cancelled token. Inside, `run` spawns its loops on [`Tasks`], builds a
//! [`GrpcServer`] and ends with [`Frame::run`], which serves until shutdown and drains within a bound.
//!
//! Invariant: a process is either working or gone. A task that ends or panics unasked takes the
//! process down with an error, and what restarts it starts from the stored state (crash-only).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod auth;
pub mod bootstrap;
pub mod client;
pub mod config;
pub mod error;
pub mod export;
pub mod frame;
pub mod http;
pub mod readiness;
pub mod retry;
pub mod secret;
pub mod server;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;
pub mod trace;

pub use auth::{Authenticator, Identity, PreviousServiceToken, StaticToken};
pub use bootstrap::{main, run_job};
pub use client::{AuthChannel, ClientAuth, channel, connect};
pub use config::{LogArgs, ServerArgs, Service, TraceArgs, parse_duration, parse_or_exit};
pub use error::{ErrorKind, internal, invalid_argument, kind_of, reason_of, status};
pub use frame::Frame;
pub use readiness::Readiness;
pub use retry::Backoff;
pub use secret::Secret;
pub use server::{GrpcServer, grpc_timeout};
pub use tasks::Tasks;
pub use trace::TraceContext;
