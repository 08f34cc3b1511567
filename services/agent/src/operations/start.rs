//! A container on the home of record, and on nothing else.
//!
//! Invariant: no container ever starts on a volume that is not the one asked for. The engine makes a
//! missing volume in silence when a container is created, so the volume is looked at again between
//! creating and starting.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use windlass_domain::conditions::Health;
use windlass_domain::control::Limits;
use windlass_domain::names;

use super::{Tools, home, stop};
use crate::docker::{ContainerInfo, DockerErrorKind, NewContainer, PullProgress, State};
use crate::error::{Failure, Reason};
use crate::failpoints::failpoint;
use crate::jobs::{Job, Kind, Task};

/// Images pulled at once: as many as wc has starts at work on a host by default, so that a registry that hangs holds
/// up nobody who pulls from another.
pub const MAX_PULLS: usize = 16;
/// How long a container without health check has to stay up.
const SETTLE: Duration = Duration::from_millis(600);
/// How long a health check is waited for. Then the job ends, and whoever observes waits on.
const HEALTH_WAIT: Duration = Duration::from_secs(30);
/// How often a starting container is looked at.
const LOOK: Duration = Duration::from_millis(150);

/// Starts the workspace's container.
#[derive(Debug)]
pub struct Start {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// Image reference.
    pub image: String,
    /// The home's volume_id.
    pub volume_id: Uuid,
    /// Upper bounds; the host's defaults where unset.
    pub limits: Limits,
}

impl Task for Start {
    const KIND: Kind = Kind::Start;

    async fn check(&self, job: &Job) -> Result<(), Failure> {
        home::require(&self.tools, job.workspace, self.volume_id)
            .await
            .map(drop)
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        let id = match self.present(job).await? {
            Some(id) => id,
            None => {
                self.bring_image(job).await?;
                self.create_and_start(job).await?
            }
        };
        // What is left is waiting: let the next one begin.
        job.release_place();
        self.settle(&id, job).await
    }
}

impl Start {
    /// The container this operation already started. Any other of the workspace makes room.
    async fn present(&self, job: &Job) -> Result<Option<String>, Failure> {
        let Some(container) = stop::own(&self.tools, job.workspace).await? else {
            return Ok(None);
        };
        let same_op = container.listed.op_id == Some(job.op_id);
        if same_op && container.listed.state == Some(State::Running) {
            return Ok(Some(container.listed.id));
        }
        let ended = matches!(container.listed.state, Some(State::Exited | State::Dead));
        if same_op && ended && container.listed.attempt == job.attempt() {
            return Err(crashed(&container));
        }
        self.tools.still_led(job)?;
        stop::end(&self.tools, &container, self.tools.docker.stop_grace).await?;
        Ok(None)
    }

    async fn bring_image(&self, job: &Job) -> Result<(), Failure> {
        let refused = |why: String| Failure::new(Reason::ImagePullFailed, why);
        names::check_image(&self.image)
            .map_err(|why| refused(format!("invalid image reference {:?}: {why}", self.image)))?;
        let engine = &self.tools.engine;
        if engine.has_image(&self.image).await? {
            return Ok(());
        }
        failpoint!("agent::start-before-pull");
        let pull = async {
            // Another start may have brought it while this one waited.
            if engine.has_image(&self.image).await? {
                return Ok(());
            }
            job.progress.pull(Some(PullProgress::default()));
            let timeout = self.tools.docker.pull_timeout;
            let tell = |progress| job.progress.pull(Some(progress));
            let pulled = engine.pull_image(&self.image, timeout, tell).await;
            job.progress.pull(None);
            match pulled {
                Ok(()) => Ok(()),
                Err(error) if error.kind == DockerErrorKind::Unreachable => Err(error.into()),
                Err(error) => Err(refused(error.to_string())),
            }
        };
        job.aside(&self.tools.pulls, pull).await
    }

    async fn create_and_start(&self, job: &Job) -> Result<String, Failure> {
        let tools = &self.tools;
        let volume = home::require(tools, job.workspace, self.volume_id).await?;
        let root = home::root(&volume)?;
        let fresh = home::is_empty(&root)
            .map_err(|error| Failure::action(format!("read {}: {error}", root.display())))?;
        if fresh {
            home::give(tools, &root)?;
        }
        tools.still_led(job)?;
        failpoint!("agent::start-before-create");
        let new = NewContainer {
            name: tools.container(job.workspace),
            image: self.image.clone(),
            workspace: job.workspace,
            op_id: job.op_id,
            attempt: job.attempt(),
            volume: volume.name.clone(),
            seed_home: tools.docker.seed_home,
            cpu_millis: self
                .limits
                .cpu_millis
                .unwrap_or(tools.docker.default_cpu_millis),
            memory_bytes: self
                .limits
                .memory_bytes
                .unwrap_or(tools.docker.default_memory_bytes),
            pids: self.limits.pids.unwrap_or(tools.docker.default_pids),
            publish: (tools.docker.workspace_port, tools.docker.publish_address),
        };
        let id = tools.engine.create_container(&new).await?;
        let started = self.start(job, &id, &volume.name, fresh).await;
        if let Err(failure) = started {
            // A container that never ran would only stand in the way.
            if let Err(error) = tools.engine.remove_container(&id).await {
                tracing::warn!(container = %new.name, "not removed: {error}");
            }
            if failure.reason == Reason::VolumeNotFound {
                self.remove_stray(&volume.name).await;
            }
            return Err(failure);
        }
        Ok(id)
    }

    async fn start(&self, job: &Job, id: &str, volume: &str, fresh: bool) -> Result<(), Failure> {
        let tools = &self.tools;
        failpoint!("agent::start-after-create");
        let found = tools.engine.inspect_volume(volume).await?;
        let Some(found) = found.filter(|v| v.labelled) else {
            return Err(Failure::new(
                Reason::VolumeNotFound,
                format!("volume {volume} vanished while its container was created"),
            ));
        };
        home::same(&found, job.workspace, self.volume_id)?;
        if fresh {
            // The image's folder gave the home its owner, too.
            home::give(tools, &home::root(&found)?)?;
        }
        tools.engine.start_container(id).await?;
        failpoint!("agent::start-after-start");
        Ok(())
    }

    /// Removes the volume that the engine made in silence: it has no label, and no container was started
    /// on it.
    async fn remove_stray(&self, name: &str) {
        let removed = match self.tools.engine.inspect_volume(name).await {
            Ok(Some(volume)) if !volume.labelled => self.tools.engine.remove_volume(name).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(volume = name, "a stray volume is left: {error}");
        }
    }

    /// Waits until it runs for a moment or, with a health check, is healthy.
    async fn settle(&self, id: &str, job: &Job) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let Some(container) = self.tools.engine.inspect_container(id).await? else {
                return Err(Failure::action(
                    "the container was removed while it started",
                ));
            };
            match (container.listed.state, container.listed.health) {
                (Some(State::Exited | State::Dead), _) => return Err(crashed(&container)),
                (Some(State::Running), None) if begun.elapsed() >= SETTLE => return Ok(()),
                (Some(State::Running), Some(Health::Healthy)) => return Ok(()),
                _ if begun.elapsed() >= HEALTH_WAIT => return Ok(()),
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = job.cancel.cancelled() => return Err(Failure::action("cancelled")),
            }
        }
    }
}

fn crashed(container: &ContainerInfo) -> Failure {
    Failure::new(Reason::CrashLoop, container.exit_message())
}
