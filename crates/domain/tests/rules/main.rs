//! The tables of the design, row by row, and what must hold of judge and planner in any world.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod checkpoints;
mod completion;
mod crashes;
mod deletion;
mod failures;
mod fixpoint;
mod gc;
mod operations;
mod phases;
mod proofs;
mod queue;
mod recovery;
mod restoring;
mod support;
mod ttl;
mod world;
mod world_props;
