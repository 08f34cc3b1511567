//! The observer's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_service::main(&windlass_observer::SERVICE, windlass_observer::run)
}
