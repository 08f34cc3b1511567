//! `windlass`: what people and scripts use to talk to Windlass, and `windlass up`, the whole system on
//! one machine. Everything but `up` is a gRPC client and nothing else.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod args;
mod client;
mod commands;
mod envfile;
mod error;
#[cfg(test)]
mod fake;
mod output;
mod resolve;
mod settings;
mod up;
mod values;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("windlass: {error}");
            return ExitCode::from(1);
        }
    };
    let result = runtime.block_on(commands::run(cli));
    // Blocking work that does not end must not keep a finished command alive.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("windlass: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
