//! The garbage collector's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_service::main(&windlass_gc::SERVICE, windlass_gc::run)
}
