//! What users and their tools talk to. It stores what they wish and tells what is; it moves nothing
//! itself, and everything it knows is in PostgreSQL, so that any number of replicas may run.
//!
//! - [`config`]: flags and variables
//! - `workspaces`, `hosts`: the two gRPC services, thin
//! - `auth`: tokens to users; `access`: who sees what
//! - `validate`, `filter`, `page`: requests to domain values, pure
//! - `present`, `explain`: rows to answers
//! - `archives`: archives read through an agent
//! - `rebuild`: rows of workspaces that only the bucket knows
//! - `watch`: one poller for all watchers
//! - `database`: readiness, and the default host
//! - `publish`: hints after commit
//! - `errors`: the one mapping from errors to statuses
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod archives;
mod auth;
pub mod config;
mod database;
mod errors;
mod explain;
mod filter;
mod hosts;
mod opaque;
mod page;
mod present;
mod publish;
mod rebuild;
mod validate;
mod watch;
mod workspaces;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{Channel, Hints};
use windlass_db::Pool;
use windlass_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        host_service_server::HostServiceServer, workspace_service_server::WorkspaceServiceServer,
    },
};
use windlass_service::{Frame, GrpcServer, Readiness, Tasks};

pub use config::Config;

/// Serves until `shutdown`. Starts without PostgreSQL too: not ready, until it answers.
///
/// # Errors
/// When the configuration cannot be used, a task ends unasked or a server fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let pool = Pool::new(config.database_url.expose(), config.database_pool_size)?;
    let hints = Hints::new(config.redis_url.as_ref().map(|url| url.expose()), &pool)?;
    let readiness = Readiness::new();
    let mut tasks = Tasks::new(shutdown);

    let database = database::Database::new(
        pool.clone(),
        readiness.clone(),
        hints.clone(),
        config.agent_address.clone(),
    );
    tasks.spawn("database", database.follow(tasks.shutdown()));
    let changes = hints.subscribe(Channel::Watch);
    let publisher = publish::Publisher {
        hints: hints.clone(),
        watch: changes.bell(),
    };
    let watch = watch::Watch::new(pool.clone(), changes.bell());
    tasks.spawn("watch", watch.clone().poll(changes, tasks.shutdown()));
    let check = watch.clone().check_tokens(tasks.shutdown());
    tasks.spawn("watchers' tokens", check);

    let authenticator = Arc::new(auth::TokenAuthenticator::new(pool.clone()));
    let token = config.service_token.as_deref();
    let archives = archives::Archives::new(pool.clone(), token);
    let settings = config.settings();
    let rebuilder = rebuild::Rebuilder::new(pool.clone(), token, &settings);
    let workspaces = workspaces::Workspaces::new(
        pool.clone(),
        settings,
        publisher,
        watch,
        archives,
        rebuilder,
    );
    let grpc = GrpcServer::new(FILE_DESCRIPTOR_SET, authenticator, &config.server)
        .add_service(WorkspaceServiceServer::new(workspaces))
        .add_service(HostServiceServer::new(hosts::Hosts::new(pool, hints)))
        .starts_traces()
        .long_lived("windlass.v1.WorkspaceService/DownloadArchive")
        .long_lived("windlass.v1.WorkspaceService/VerifyArchive")
        .long_lived("windlass.v1.WorkspaceService/RebuildWorkspaces");
    let frame = Frame {
        grpc,
        readiness,
        tasks,
    };
    frame.run(&config.server, listener).await
}
