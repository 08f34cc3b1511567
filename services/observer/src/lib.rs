//! The observer: sees all resources of all hosts in bulk and stores what it saw.
//!
//! - `tick`: one pass - load rows, look at all hosts, store what changed, wake wc
//! - `look`: what one host shows, all-or-nothing per unit (containers and volumes; archives)
//! - `gather`: what all hosts show, by workspace
//! - `events`: engine events as hints
//! - `grpc`: ObserverService
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod events;
mod gather;
mod grpc;
mod look;
mod tick;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{Agents, Channel, Coordinator, CoordinatorArgs, Periods};
use windlass_proto::{FILE_DESCRIPTOR_SET, v1::observer_service_server::ObserverServiceServer};
use windlass_service::{Frame, GrpcServer, Readiness, ServerArgs, Service, Tasks, parse_duration};

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

    /// Time between passes while something is in progress
    #[arg(long, env = "WINDLASS_ACTIVE_PERIOD", default_value = "1s", value_parser = parse_duration)]
    pub active_period: Duration,

    /// Time between passes otherwise
    #[arg(long, env = "WINDLASS_IDLE_PERIOD", default_value = "15s", value_parser = parse_duration)]
    pub idle_period: Duration,

    /// How long the active period goes on after the last reason for it
    #[arg(long, env = "WINDLASS_ACTIVE_FOR", default_value = "30s", value_parser = parse_duration)]
    pub active_for: Duration,

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
    let waker = hints.subscribe(Channel::Observer);
    let agents = Arc::new(Agents::new(&args.service_token));
    let events = (!args.no_hints).then(|| events::Events::new(Arc::clone(&agents), waker.bell()));
    let pass = tick::Observe::new(pool.clone(), agents, hints, events, config.observe_timeout);

    let readiness = Readiness::new();
    let mut tasks = Tasks::new(shutdown.clone());
    let (handle, task) = Coordinator {
        name: SERVICE.name,
        holder: args.holder(listener.local_addr()?),
        pool,
        lease_ttl: args.lease_ttl,
        periods: Periods {
            active: config.active_period,
            idle: config.idle_period,
            active_for: config.active_for,
        },
        waker,
        pass,
    }
    .start(readiness.clone(), shutdown);
    tasks.spawn("observe", task);

    let auth = args.authenticator();
    let grpc = GrpcServer::new(FILE_DESCRIPTOR_SET, auth, &config.server)
        .add_service(ObserverServiceServer::new(grpc::Grpc(handle)));
    Frame {
        grpc,
        readiness,
        tasks,
    }
    .run(&config.server, listener)
    .await
}
