//! The fault table of the archive pipeline: one test a row. Whatever fails, the reason is precise, no
//! marker is written, the home stays as it was, and nothing is left once gc has passed.
//!
//! - `row`: a home, a store, and a network between them that fails as told
//! - `home`: the home changes, its disk fails, the job is cancelled
//! - `space`: the volume of a restore is or becomes too small
//! - `network`: connections are refused, reset, cut off, hang or are slow
//! - `answers`: the store refuses, or gives and takes wrong bytes
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod home;
mod network;
mod row;
mod space;
