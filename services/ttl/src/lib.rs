//! The TTL runner: moves idle workspaces down.
//!
//! - `tick`: one pass - fold recorded activity into last_access_at, then both TTL rules
//! - `activity`: the buffer of recorded activity, in Redis or in this process
//! - `grpc`: TtlService
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod activity;
mod grpc;
mod tick;

use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{CoordinatorArgs, Periods, Setup, Waker, serve};
use windlass_domain::ttl::{DEFAULT_ARCHIVE_TTL, DEFAULT_STANDBY_TTL};
use windlass_proto::v1::ttl_service_server::TtlServiceServer;
use windlass_service::{ServerArgs, Service, parse_duration};

/// Name and port.
pub const SERVICE: Service = Service {
    name: "ttl",
    port: 7404,
};

/// Configuration of the TTL runner.
#[derive(Clone, Debug, Parser)]
#[command(name = "windlass-ttl", version, about)]
pub struct Config {
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,

    /// Time between passes
    #[arg(long, env = "WINDLASS_TTL_PERIOD", default_value = "60s", value_parser = parse_duration)]
    pub period: Duration,

    /// Idle time after which RUNNING becomes STANDBY, unless the workspace says otherwise; 0: never
    #[arg(long, env = "WINDLASS_STANDBY_TTL", default_value = "600s", value_parser = parse_duration)]
    pub standby_ttl: Duration,

    /// Time in STANDBY after which it is archived, unless the workspace says otherwise; 0: never
    #[arg(long, env = "WINDLASS_ARCHIVE_TTL", default_value = "1800s", value_parser = parse_duration)]
    pub archive_ttl: Duration,

    #[command(flatten)]
    pub server: ServerArgs,
}

impl AsRef<ServerArgs> for Config {
    fn as_ref(&self) -> &ServerArgs {
        &self.server
    }
}

/// Runs the TTL runner until `shutdown`.
///
/// # Errors
/// When the configuration is unusable or a task ends unasked.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let args = &config.coordinator;
    let (pool, hints) = args.connect()?;
    let buffer = activity::Buffer::new(args.redis_url.as_ref().map(|url| url.expose()))?;
    let pass = tick::Expire {
        pool: pool.clone(),
        hints,
        buffer: buffer.clone(),
        standby_ttl: chrono::TimeDelta::from_std(config.standby_ttl).unwrap_or(DEFAULT_STANDBY_TTL),
        archive_ttl: chrono::TimeDelta::from_std(config.archive_ttl).unwrap_or(DEFAULT_ARCHIVE_TTL),
    };

    let setup = Setup {
        service: SERVICE,
        pool,
        periods: Periods::steady(config.period),
        // No hint asks ttl for anything, and it has no shards.
        passes: vec![(Waker::never(), pass)],
    };
    serve(
        setup,
        args,
        &config.server,
        listener,
        shutdown,
        |server, handle| server.add_service(TtlServiceServer::new(grpc::Grpc { handle, buffer })),
    )
    .await
}
