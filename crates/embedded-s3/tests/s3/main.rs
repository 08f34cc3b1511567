//! The store as its clients see it: over HTTP, signed, in a folder of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod listing;
mod multipart;
mod objects;
mod recovery;
