//! The observer: sees all resources of all hosts in bulk and stores what it saw.
//!
//! - `tick`: one pass - read what changed, look at all hosts, store what changed, wake wc
//! - `rows`: the rows in memory, as far as deciding needs them
//! - `looks`: looks at all hosts at once, each with its own deadline
//! - `look`: what changed at one host, all-or-nothing per unit (containers and volumes; archives)
//! - `evidence`: what agents say, as evidence
//! - `hosts`, `mirror`: what is known of each host
//! - `store`: what is known of the archive store, which all hosts share
//! - `whole`: what differs where the whole is told anew
//! - `pending`: what is to be decided about again
//! - `account`: metrics and spans of what passes saw
//! - `events`: engine events as hints
//! - `grpc`: ObserverService
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod account;
mod events;
mod evidence;
mod grpc;
mod hosts;
mod look;
mod looks;
mod mirror;
mod pending;
mod rows;
mod store;
mod tick;
mod whole;

pub use events::Events;
pub use tick::{Observe, Settings};

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

/// How long a pass waits for hosts that were as quick the last time.
const GRACE: Duration = Duration::from_secs(1);

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

    /// How old an observation of a host may be for wc to act on it; as in wc
    #[arg(long, env = "WINDLASS_STALE_AFTER", default_value = "60s", value_parser = parse_duration)]
    pub stale_after: Duration,

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
    anyhow::ensure!(
        config.periods.idle_period <= config.stale_after / 2,
        "WINDLASS_IDLE_PERIOD is {:?}, more than half of WINDLASS_STALE_AFTER ({:?}): hosts would look \
         stale, and wc would begin nothing",
        config.periods.idle_period,
        config.stale_after
    );
    // Told from the start: an alert looks for an increase.
    metrics::counter!("windlass_observer_unreadable_rows_total").increment(0);
    let args = &config.coordinator;
    let (pool, hints) = args.connect()?;
    let agents = Arc::new(Agents::new(&args.service_token));
    let settings = Settings {
        timeout: config.observe_timeout,
        grace: GRACE,
        stale_after: config.stale_after,
    };
    let pass = |waker: Waker| {
        let (bell, nudge) = (waker.bell(), waker.nudge());
        let events = (!args.no_hints).then(|| Events::new(Arc::clone(&agents), bell));
        let (pool, agents) = (pool.clone(), Arc::clone(&agents));
        let pass = Observe::new(pool, agents, hints.clone(), events, nudge, settings);
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
