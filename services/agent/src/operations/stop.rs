//! A container's end.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Tools;
use crate::docker::ContainerInfo;
use crate::error::Failure;
use crate::failpoints::failpoint;
use crate::jobs::{Job, Kind, Task};

/// Stops the workspace's container and removes it.
#[derive(Debug)]
pub struct Stop {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
}

impl Task for Stop {
    const KIND: Kind = Kind::Stop;

    async fn check(&self, job: &Job) -> Result<(), Failure> {
        own(&self.tools, job.workspace).await.map(drop)
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        match own(&self.tools, job.workspace).await? {
            Some(container) => end(&self.tools, &container, self.grace).await,
            None => Ok(()),
        }
    }
}

/// The workspace's container.
///
/// # Errors
/// When a container that is not ours has its name.
pub(super) async fn own(tools: &Tools, workspace: Uuid) -> Result<Option<ContainerInfo>, Failure> {
    let name = tools.container(workspace);
    let container = match tools.engine.inspect_container(&name).await {
        Ok(container) => container,
        Err(error) => {
            // One that is broken can still be listed, and has to go all the more.
            tracing::warn!(container = %name, "only listed: {error}");
            let listed = tools.engine.list_named(&name).await?;
            listed.map(ContainerInfo::from)
        }
    };
    match container {
        Some(container) if container.listed.workspace != Some(workspace) => Err(Failure::action(
            format!("container {name} does not carry this workspace's label: it is left alone"),
        )),
        container => Ok(container),
    }
}

/// Stops and removes a container.
pub(super) async fn end(
    tools: &Tools,
    container: &ContainerInfo,
    grace: Duration,
) -> Result<(), Failure> {
    let id = &container.listed.id;
    failpoint!("agent::stop-before-stop");
    if container.is_alive() {
        tools.engine.stop_container(id, grace).await?;
    }
    failpoint!("agent::stop-before-remove");
    tools.engine.remove_container(id).await?;
    failpoint!("agent::stop-after-remove");
    Ok(())
}
