//! What the benchmarks in `benches/` share. They measure; they assert nothing about time.
//!
//! - `args`: the command line, and the small mode
//! - `report`: the table for people, and JSON and Markdown in `target/bench`
//! - `process`: CPU time and memory of processes
//! - `plane`: the services on a real, durable PostgreSQL, on an engine or on simulated agents
//! - `passes`, `cost`: has them make passes, and what they used
//! - `rows`: workspaces written into the database in bulk, and what the services' queries were
//! - `raw`: the engine without anything between: the floor
//! - `recorder`: when the engine was asked what
//!
//! Figures of different machines or runs say nothing about each other; ratios within a run do.

pub mod args;
pub mod cost;
pub mod passes;
pub mod plane;
pub mod process;
pub mod raw;
pub mod recorder;
pub mod report;
pub mod rows;

use std::time::{Duration, Instant};

pub use args::Args;
pub use plane::Plane;
pub use report::{Goal, Report};

/// Milliseconds of a duration.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Runs something and says how many milliseconds it took.
pub async fn timed<T>(work: impl Future<Output = T>) -> (f64, T) {
    let began = Instant::now();
    let result = work.await;
    (ms(began.elapsed()), result)
}
