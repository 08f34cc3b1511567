//! The observer: sees all resources of all hosts in bulk and stores what it saw.
//!
//! - `tick`: one pass - load rows, look at all hosts, store what changed, wake wc
//! - `look`: what one host shows, all-or-nothing per unit (containers and volumes; archives)
//! - `gather`: what all hosts show, by workspace
//! - `account`: metrics and spans of what passes saw
//! - `events`: engine events as hints
//! - `grpc`: ObserverService
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod account;
mod events;
mod gather;
mod grpc;
mod look;
mod tick;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{
    Agents, Channel, CoordinatorArgs, PeriodArgs, Setup, ShardArgs, Waker, serve,
};
use windlass_proto::v1::observer_service_server::ObserverServiceServer;
use windlass_service::{ServerArgs, Service, parse_duration};

/// Name and port.
pub const SERVICE: Service = Service {
    name: "observer",
    port: 7402,
};

/// Configuration of the observer.
#[derive(Clone, Debug, Parser)]
#[command(name = "windlass-observer", version, about)]
pub struct Config {
    #[command(flatten)]
    pub coordinator: CoordinatorArgs,

    #[command(flatten)]
    pub periods: PeriodArgs,

    #[command(flatten)]
    pub shards: ShardArgs,

    /// How long a host may take to show itself
    #[arg(long, env = "WINDLASS_OBSERVE_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub observe_timeout: Duration,

    #[command(flatten)]
    pub server: ServerArgs,
}

impl AsRef<ServerArgs> for Config {
    fn as_ref(&self) -> &ServerArgs {
        &self.server
    }
}

/// Runs the observer until `shutdown`.
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
    let agents = Arc::new(Agents::new(&args.service_token));
    let pass = |waker: Waker| {
        let events =
            (!args.no_hints).then(|| events::Events::new(Arc::clone(&agents), waker.bell()));
        let (pool, agents) = (pool.clone(), Arc::clone(&agents));
        let pass = tick::Observe::new(pool, agents, hints.clone(), events, config.observe_timeout);
        (waker, pass)
    };
    let wakers = hints.subscribe_each(Channel::Observer, config.shards.shards);
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
        |server, handle| server.add_service(ObserverServiceServer::new(grpc::Grpc(handle))),
    )
    .await
}
