//! The observer pass by pass, against agents that are simulated and a PostgreSQL that is real: what a pass
//! costs, and that nothing is lost or wrong for long, whatever answers look like.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cost;
mod faults;
mod fixture;
mod proof;
mod store;
