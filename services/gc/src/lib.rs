//! The garbage collector: removes orphaned archives, never anything a workspace may still need. What is
//! an orphan is `windlass_domain::gc`'s; here it is carried out.
//!
//! - `tick`: one pass - load, plan, remember sightings, delete what is due
//! - `store`: what is in the archive store, as groups that live and die together
//! - `grpc`: GcService
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod grpc;
mod store;
mod tick;

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{Agents, CoordinatorArgs, Periods, Setup, Waker, serve};
use windlass_domain::gc::GcPolicy;
use windlass_proto::v1::gc_service_server::GcServiceServer;
use windlass_service::{ServerArgs, Service, parse_duration};

/// Name and port.
pub const SERVICE: Service = Service {
    name: "gc",
    port: 7405,
};

/// Configuration of the garbage collector.
#[derive(Clone, Debug, Parser)]
#[command(name = "windlass-gc", version, about)]
pub struct Config {
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,

    /// Time between passes
    #[arg(long, env = "WINDLASS_GC_PERIOD", default_value = "4h", value_parser = parse_duration)]
    pub period: Duration,

    /// Newest complete archives kept per workspace
    #[arg(long, env = "WINDLASS_GC_RETENTION", default_value_t = 3)]
    pub retention: usize,

    /// How long an orphan must have been seen as one before it is deleted
    #[arg(long, env = "WINDLASS_GC_GRACE", default_value = "2h", value_parser = parse_duration)]
    pub grace: Duration,

    /// The same for objects whose workspace is in no row
    #[arg(long, env = "WINDLASS_GC_UNKNOWN_GRACE", default_value = "7d", value_parser = parse_duration)]
    pub unknown_grace: Duration,

    /// How long after its deletion a workspace's archives are kept, so that it can be undeleted
    #[arg(long, env = "WINDLASS_GC_DELETED_GRACE", default_value = "24h", value_parser = parse_duration)]
    pub deleted_grace: Duration,

    /// Multipart uploads that began longer ago than this are aborted
    #[arg(long, env = "WINDLASS_GC_UPLOAD_GRACE", default_value = "24h", value_parser = parse_duration)]
    pub upload_grace: Duration,

    /// The largest share of all archives that one pass deletes, in per cent
    #[arg(long, env = "WINDLASS_GC_BREAKER_PERCENT", default_value_t = 20)]
    pub breaker_percent: u32,

    #[command(flatten)]
    pub server: ServerArgs,
}

impl AsRef<ServerArgs> for Config {
    fn as_ref(&self) -> &ServerArgs {
        &self.server
    }
}

impl Config {
    fn policy(&self) -> GcPolicy {
        GcPolicy {
            retention: self.retention,
            grace: delta(self.grace),
            unknown_grace: delta(self.unknown_grace),
            deleted_grace: delta(self.deleted_grace),
            breaker_percent: self.breaker_percent,
        }
    }
}

/// A century stands for whatever is longer, so that no sum of times overflows.
fn delta(d: Duration) -> TimeDelta {
    const CENTURY: TimeDelta = TimeDelta::days(36_525);
    TimeDelta::from_std(d).map_or(CENTURY, |d| d.min(CENTURY))
}

/// Runs the garbage collector until `shutdown`.
///
/// # Errors
/// When the configuration is unusable or a task ends unasked.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let args = &config.coordinator;
    let pool = args.pool()?;
    let collect = tick::Collect {
        pool: pool.clone(),
        agents: Arc::new(Agents::new(&args.service_token)),
        policy: config.policy(),
        upload_grace: delta(config.upload_grace),
    };

    let setup = Setup {
        service: SERVICE,
        pool,
        periods: Periods::steady(config.period),
        // No hint asks gc for anything, and it has no shards.
        passes: vec![(Waker::never(), collect.clone())],
    };
    serve(
        setup,
        args,
        &config.server,
        listener,
        shutdown,
        |server, handle| {
            server
                .add_service(GcServiceServer::new(grpc::Grpc { handle, collect }))
                .long_lived("windlass.v1.GcService/Plan")
                .long_lived("windlass.v1.GcService/RunOnce")
        },
    )
    .await
}
