//! The agent: the data plane of one Docker host. Its truth is the engine and the archive store; it has no
//! database and decides nothing: wc says what is to be done, gc what may go.
//!
//! [`jobs`] lets one operation per workspace in at a time, [`operations`] does it, [`model`] (fed by
//! [`feed`]) and [`index`] tell what there is, [`watch`] hints that something changed. [`docker`] is the only place
//! that knows the engine's client, [`grpc`] the only one that knows the wire. [`readers`] hands archives
//! out.
//!
//! Invariants: a deposed leader changes nothing ([`epochs`]); no home is removed whose verified archive
//! does not hold exactly what it holds now ([`operations`]); the store being away blinds nobody to
//! containers.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod docker;
pub mod epochs;
pub mod error;
pub mod failpoints;
pub mod feed;
pub mod grpc;
pub mod host;
pub mod index;
pub mod jobs;
pub mod model;
pub mod operations;
pub mod readers;
mod request;
pub mod watch;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use windlass_archive::Store;
use windlass_proto::FILE_DESCRIPTOR_SET;
use windlass_proto::v1::agent_service_server::AgentServiceServer;
use windlass_service::{Frame, GrpcServer, Readiness, Secret, StaticToken, Tasks};

pub use config::Config;
use docker::Engine;
use epochs::Epochs;
use feed::{Dirty, Feed};
use grpc::Agent;
use host::Host;
use index::Index;
use jobs::Jobs;
use model::Model;
use operations::Tools;
use readers::Readers;
use watch::Hints;

/// Runs the agent until `shutdown`. Neither the engine nor the store has to be there at start.
///
/// # Errors
/// When the state folder cannot be used (or another agent uses it), the store's configuration makes no
/// sense, or a task ends unasked.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // One agent per folder: what keeps two from working on the same workspace.
    let _only = lock(&config.state_dir)?;
    let epochs = Arc::new(Epochs::open(&config.state_dir)?);
    let engine = Engine::new(config.docker.docker_host.as_deref(), &config.docker.prefix);
    let store = Store::new(config.store.store_config()?)
        .await
        .context("the archive store's configuration")?;
    tracing::info!(
        engine = engine.host(),
        prefix = engine.prefix(),
        bucket = store.bucket(),
        "agent of one host"
    );
    let index = Index::new(store.clone(), config.store.archive_resync);
    let hints = Hints::default();
    let dirty = Dirty::default();
    let model = Model::new(dirty.clone());
    let jobs = Jobs::new(&config.jobs, epochs.clone(), dirty.clone());
    let feed = Feed {
        engine: engine.clone(),
        jobs: jobs.clone(),
        dirty: dirty.clone(),
        model: model.clone(),
        hints: hints.clone(),
        resync: config.docker.resync_interval,
    };
    let host = Host {
        engine: engine.clone(),
        store: store.clone(),
        index: index.clone(),
        jobs: jobs.clone(),
        epochs: epochs.clone(),
        store_error: Arc::default(),
    };
    let tools = Arc::new(Tools {
        engine: engine.clone(),
        store,
        index: index.clone(),
        docker: config.docker.clone(),
        verify: config.store.archive_verify.into(),
        zstd_level: config.store.zstd_level,
        epochs,
        pulls: Semaphore::new(operations::MAX_PULLS),
    });

    let readiness = Readiness::new();
    readiness.expect("engine");
    let mut tasks = Tasks::new(shutdown.clone());
    let until = || shutdown.clone();
    let stop = until();
    tasks.spawn("archive index", async move {
        index.keep_fresh(stop).await;
        Ok(())
    });
    let (stop, checked, reported) = (until(), host.clone(), readiness.clone());
    tasks.spawn("checks", async move {
        checked.keep_checking(reported, stop).await;
        Ok(())
    });
    let stop = until();
    tasks.spawn("engine events", async move {
        feed::follow(engine, dirty, stop).await;
        Ok(())
    });
    let stop = until();
    tasks.spawn("host model", async move {
        feed.run(stop).await;
        Ok(())
    });
    // Jobs get most of the time there is to stop; the rest is for the answers.
    let (stop, ended) = (until(), jobs.clone());
    let bound = config.server.drain_timeout.mul_f64(0.8);
    tasks.spawn("jobs", async move {
        ended.end_with(stop, bound).await;
        Ok(())
    });

    let agent = Agent {
        tools,
        jobs,
        model,
        host,
        hints,
        readers: Readers::default(),
        shutdown,
    };
    let token = Secret::new(config.service_token.expose());
    let previous = config.previous_service_token.as_ref();
    let authenticator = Arc::new(StaticToken::new(token, "windlass").or(previous));
    let frame = Frame {
        grpc: GrpcServer::new(FILE_DESCRIPTOR_SET, authenticator, &config.server)
            .add_service(AgentServiceServer::new(agent))
            .long_lived("windlass.v1.AgentService/ListArchives")
            .long_lived("windlass.v1.AgentService/ReadArchive")
            .long_lived("windlass.v1.AgentService/VerifyArchive"),
        readiness,
        tasks,
    };
    frame.run(&config.server, listener).await
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| {
        format!("cannot make the state folder {shown} (WINDLASS_AGENT_STATE_DIR)")
    })?;
    let file = File::create(folder.join("lock"))
        .with_context(|| format!("cannot write to {shown} (WINDLASS_AGENT_STATE_DIR)"))?;
    file.try_lock().with_context(|| {
        format!("another agent uses the state folder {shown} (WINDLASS_AGENT_STATE_DIR)")
    })?;
    Ok(file)
}
