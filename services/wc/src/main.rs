//! The workspace controller's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_service::main(&windlass_wc::SERVICE, windlass_wc::run)
}
