//! `windlass-api`: see [`windlass_api`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use windlass_service::Service;

const SERVICE: Service = Service {
    name: "api",
    port: 7400,
};

fn main() -> ExitCode {
    windlass_service::main(&SERVICE, windlass_api::run)
}
