//! The TTL runner's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass_service::main(&windlass_ttl::SERVICE, windlass_ttl::run)
}
