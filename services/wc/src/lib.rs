//! The workspace controller: judges each workspace's phase, plans one operation and has the agent execute
//! it. What is judged and planned is `windlass_domain`'s; here it is carried out.
//!
//! - `tick`: one pass - look at rows that need attention, plan each, store what changed, then call agents
//! - `look`: what a pass looks at, and what it keeps of that
//! - `memory`: what a pass leaves for the next: up to where changes were seen
//! - `plan`: what a pass decides, pure; who finds a place and who waits
//! - `places`: how many places there are
//! - `account`: metrics and spans of what passes decide
//! - `dispatch`: calls to agents, outside the loop, limited per host and kind
//! - `call`: one call, and what its answer means
//! - `grpc`: WcService
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod account;
mod call;
mod dispatch;
mod grpc;
mod look;
mod memory;
mod places;
mod plan;
#[cfg(test)]
mod tests;
mod tick;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{
    Agents, Channel, CoordinatorArgs, PeriodArgs, Setup, ShardArgs, Waker, serve,
};
use windlass_domain::Policy;
use windlass_proto::v1::wc_service_server::WcServiceServer;
use windlass_service::{ServerArgs, Service, parse_duration};

/// Name and port.
pub const SERVICE: Service = Service {
    name: "wc",
    port: 7403,
};

/// Configuration of the workspace controller.
#[derive(Clone, Debug, Parser)]
#[command(name = "windlass-wc", version, about)]
pub struct Config {
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,

    #[command(flatten)]
    pub periods: PeriodArgs,

    #[command(flatten)]
    pub shards: ShardArgs,

    /// Failures in a row that end in ERROR
    #[arg(long, env = "WINDLASS_MAX_RETRIES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_retries: u32,

    /// Time limit of an operation; for archiving and restoring, the time without progress
    #[arg(long, env = "WINDLASS_OPERATION_TIMEOUT", default_value = "10m", value_parser = parse_duration)]
    pub operation_timeout: Duration,

    /// A host that was not observed for this long gets no new operation
    #[arg(long, env = "WINDLASS_STALE_AFTER", default_value = "60s", value_parser = parse_duration)]
    pub stale_after: Duration,

    /// How long a container gets between SIGTERM and SIGKILL
    #[arg(long, env = "WINDLASS_STOP_GRACE", default_value = "10s", value_parser = parse_duration)]
    pub stop_grace: Duration,

    /// Calls to one host at a time, for each kind of call
    #[arg(long, env = "WINDLASS_CALLS_PER_HOST", default_value_t = 16)]
    pub calls_per_host: usize,

    #[command(flatten)]
    pub places: places::Places,

    /// How often every workspace is looked at, whether or not it changed
    #[arg(long, env = "WINDLASS_FULL_PASS_PERIOD", default_value = "5m", value_parser = parse_duration)]
    pub full_pass_period: Duration,

    #[command(flatten)]
    pub server: ServerArgs,
}

impl AsRef<ServerArgs> for Config {
    fn as_ref(&self) -> &ServerArgs {
        &self.server
    }
}

impl Config {
    /// A host that is observed every idle period is stale in between if that is longer; a hint would then
    /// begin nothing.
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.periods.idle_period <= self.stale_after,
            "WINDLASS_IDLE_PERIOD ({:?}) is longer than WINDLASS_STALE_AFTER ({:?}): between two passes every \
             host would be too stale to begin anything",
            self.periods.idle_period,
            self.stale_after
        );
        Ok(())
    }

    fn policy(&self) -> Policy {
        let delta = |d| chrono::TimeDelta::from_std(d).unwrap_or(chrono::TimeDelta::MAX);
        Policy {
            max_retries: self.max_retries,
            operation_timeout: delta(self.operation_timeout),
            stale_after: delta(self.stale_after),
            ..Policy::default()
        }
    }
}

/// Runs the workspace controller until `shutdown`.
///
/// # Errors
/// When the configuration is unusable or a task ends unasked.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.check()?;
    let args = &config.coordinator;
    // Told from the start: an alert looks for an increase.
    metrics::counter!("windlass_wc_stale_epoch_total").increment(0);
    metrics::counter!("windlass_wc_unreadable_rows_total").increment(0);
    account::begin_counting();
    let (pool, hints) = args.connect()?;
    let agents = Arc::new(Agents::new(&args.service_token));
    let pass = |waker: Waker| {
        let dispatcher = dispatch::Dispatcher::new(
            Arc::clone(&agents),
            hints.clone(),
            waker.bell(),
            config.stop_grace,
            config.calls_per_host,
        );
        let numbers = plan::Numbers {
            policy: config.policy(),
            places: config.places,
        };
        let memory = memory::Memory::new(config.full_pass_period);
        let (pool, hints) = (pool.clone(), hints.clone());
        let pass = tick::Reconcile::new(pool, hints, dispatcher, numbers, memory);
        (waker, pass)
    };
    let wakers = hints.subscribe_each(Channel::Wc, config.shards.shards);
    let passes = wakers.into_iter().map(pass).collect();

    let setup = Setup {
        service: SERVICE,
        pool,
        periods: config.periods.into(),
        passes,
    };
    serve(
        setup,
        args,
        &config.server,
        listener,
        shutdown,
        |server, handle| server.add_service(WcServiceServer::new(grpc::Grpc(handle))),
    )
    .await
}
