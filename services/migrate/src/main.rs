//! `windlass-migrate`: see [`windlass_migrate`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_service::run_job("windlass-migrate", windlass_migrate::run)
}
