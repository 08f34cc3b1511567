//! The harness of the scenarios in `tests/`: a whole Windlass of its own for each test.
//!
//! - `world`: starts PostgreSQL, Redis, the S3 store and the services, and takes them away again
//! - `parts`: how they are started, and how services find them
//! - `services`: the service processes; killing one is a real `kill -9`
//! - `clients`: gRPC clients of all services
//! - `workspaces`: what users do with workspaces, and waiting until it is done
//! - `cli`: the command line
//! - `docker`: the engine as a bystander sees it, through the `docker` program
//! - `http`: asks the HTTP servers for metrics and health
//! - `moto`: an S3 server that is not ours
//! - `proxy`: a network between client and S3 server that misbehaves on purpose
//! - `otlp`: a collector of traces
//! - `sim_agent`: an agent of a host of any size, without an engine
//! - `home`: writes homes, and compares them by the digest of every file
//! - `wait`: the one way to wait
//! - `bench`: what the benchmarks in `benches/` share
//!
//! Nothing is skipped: where PostgreSQL, Redis or a Docker engine is missing, a test fails and says so.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod bench;
mod cli;
pub mod clients;
pub mod docker;
#[cfg(feature = "garage")]
pub mod garage;
pub mod home;
pub mod http;
pub mod moto;
pub mod otlp;
mod parts;
pub mod proxy;
pub mod services;
pub mod sim_agent;
pub mod wait;
mod workspaces;
pub mod world;

pub use services::Name;
pub use world::World;
