//! The gRPC contracts of Windlass, compiled once for every service and client. The `.proto` files beside
//! this one are the reference; `convert` turns wire values into domain values and rejects what is none.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod convert;

/// Package `windlass.v1`, as generated.
#[allow(clippy::all, missing_debug_implementations, rustdoc::all)]
pub mod v1 {
    tonic::include_proto!("windlass.v1");
}

/// The compiled descriptor set, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/windlass.bin"));

/// Domain of every `google.rpc.ErrorInfo` that Windlass sends.
pub const ERROR_DOMAIN: &str = "windlass.dev";
