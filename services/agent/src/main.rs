//! The agent's binary; everything is in the library.

use std::process::ExitCode;

use windlass_service::Service;

fn main() -> ExitCode {
    let service = Service {
        name: "agent",
        port: 7401,
    };
    windlass_service::main(&service, windlass_agent::run)
}
