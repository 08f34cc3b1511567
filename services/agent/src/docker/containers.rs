//! Containers: listing, looking closely, making, starting, stopping, removing.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, PortBinding, PortMap,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions, StopContainerOptions,
};
use chrono::{DateTime, Utc};
use uuid::Uuid;
use windlass_domain::conditions::{ContainerState, Health};

use super::parse::{inspected, listed, name_of, state_in};
use super::{DockerError, DockerErrorKind, Engine, SLOW_TIMEOUT, TIMEOUT, label, lists};

/// Where the home is mounted.
pub const HOME: &str = "/home/coder";
/// How long the engine may take to stop a container beyond its grace.
const STOP_MARGIN: Duration = Duration::from_secs(60);

/// State of a container.
pub type State = ContainerState;

/// A container as the list tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The engine's id.
    pub id: String,
    /// Name, without the engine's leading slash.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// State; `None` for one this version does not know.
    pub state: Option<State>,
    /// Health, where the image has a check.
    pub health: Option<Health>,
    /// Exit code, where it ended.
    pub exit_code: Option<i32>,
    /// The workspace of its label.
    pub workspace: Option<Uuid>,
    /// The operation of its label.
    pub op_id: Option<Uuid>,
    /// The attempt of its label.
    pub attempt: u32,
    /// Whether it has the label of a workspace, well-formed or not.
    pub labelled: bool,
    /// The agent's prefix of its label.
    pub prefix: Option<String>,
    /// How long ago it started or ended, as far as the list's words tell.
    pub age: Option<Range<Duration>>,
}

impl Listed {
    /// Whether it is a container of the agent with this prefix: what its full list would tell.
    pub fn belongs_to(&self, prefix: &str) -> bool {
        self.labelled && self.prefix.as_deref() == Some(prefix) && self.name.starts_with(prefix)
    }
}

/// A container looked at closely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// What the list tells, too.
    pub listed: Listed,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// When it last started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it last ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// What the engine says went wrong.
    pub error: String,
    /// Published ports: of the container, and where.
    pub ports: Vec<(u16, SocketAddr)>,
}

impl From<Listed> for ContainerInfo {
    /// As much as the list tells.
    fn from(listed: Listed) -> Self {
        Self {
            listed,
            oom_killed: false,
            started_at: None,
            finished_at: None,
            error: String::new(),
            ports: Vec::new(),
        }
    }
}

impl ContainerInfo {
    /// Whether its processes exist.
    pub fn is_alive(&self) -> bool {
        is_alive(self.listed.state)
    }

    /// How it ended, in words.
    pub fn exit_message(&self) -> String {
        let code = self.listed.exit_code.map_or_else(
            || "the container exited with an unknown code".to_owned(),
            |code| format!("the container exited with code {code}"),
        );
        let oom = if self.oom_killed {
            ", killed for want of memory (OOM)"
        } else {
            ""
        };
        let error = if self.error.is_empty() {
            String::new()
        } else {
            format!(": {}", self.error)
        };
        format!("{code}{oom}{error}")
    }
}

pub(super) fn is_alive(state: Option<State>) -> bool {
    match state {
        Some(State::Running | State::Paused | State::Restarting | State::Removing) | None => true,
        Some(State::Created | State::Exited | State::Dead) => false,
    }
}

/// A container that uses a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Whether its processes exist.
    pub alive: bool,
}

/// A container to be made.
#[derive(Debug, Clone)]
pub struct NewContainer {
    /// Name.
    pub name: String,
    /// Image reference, present at the engine.
    pub image: String,
    /// The workspace.
    pub workspace: Uuid,
    /// The operation.
    pub op_id: Uuid,
    /// Its attempt.
    pub attempt: u32,
    /// Name of the home volume.
    pub volume: String,
    /// Whether an empty volume gets what the image has at [`HOME`].
    pub seed_home: bool,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes; swap is not added.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// The HTTP port inside, and the address it is published on.
    pub publish: (u16, IpAddr),
}

impl Engine {
    /// Workspace containers whose name begins with `prefix`, in one request.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn list_containers(&self, prefix: &str) -> Result<Vec<Listed>, DockerError> {
        let mut labels = vec![label::WORKSPACE.to_owned()];
        if prefix == self.prefix() {
            labels.push(format!("{}={prefix}", label::PREFIX));
        }
        self.list_where("label", labels, prefix).await
    }

    /// The same of these engine's ids only.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn list_these(&self, ids: Vec<String>) -> Result<Vec<Listed>, DockerError> {
        let mut listed = self.list_where("id", ids, self.prefix()).await?;
        listed.retain(|container| container.belongs_to(self.prefix()));
        Ok(listed)
    }

    /// The one of this name, if there is one.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn list_named(&self, name: &str) -> Result<Option<Listed>, DockerError> {
        let listed = self.list_where("name", vec![name.to_owned()], name).await?;
        // The engine's filter finds the text anywhere in a name.
        Ok(listed.into_iter().find(|container| container.name == name))
    }

    async fn list_where(
        &self,
        filter: &str,
        values: Vec<String>,
        prefix: &str,
    ) -> Result<Vec<Listed>, DockerError> {
        let containers = self.containers(filter, values).await?;
        Ok(containers
            .into_iter()
            .filter_map(listed)
            .filter(|c| c.name.starts_with(prefix))
            .collect())
    }

    /// Containers in any state that use the volume.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn users_of(&self, volume: &str) -> Result<Vec<User>, DockerError> {
        let containers = self.containers("volume", vec![volume.to_owned()]).await?;
        let uses = |c: &lists::Container| {
            let mounts = c.mounts.iter().flatten();
            // The engine's filter also matches destinations.
            mounts.clone().count() == 0 || mounts.clone().any(|m| m.name.as_deref() == Some(volume))
        };
        Ok(containers
            .into_iter()
            .filter(uses)
            .map(|c| User {
                name: name_of(&c).unwrap_or_else(|| c.id.clone().unwrap_or_default()),
                alive: is_alive(c.state.as_deref().and_then(state_in)),
            })
            .collect())
    }

    /// A container by name or id; `None` if there is none.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn inspect_container(
        &self,
        name: &str,
    ) -> Result<Option<ContainerInfo>, DockerError> {
        let found = self
            .find(
                format!("inspect container {name}"),
                TIMEOUT,
                async |docker| {
                    docker
                        .inspect_container(name, None::<InspectContainerOptions>)
                        .await
                },
            )
            .await?;
        Ok(found.map(inspected))
    }

    /// Makes a container and returns its id.
    ///
    /// # Errors
    /// When the engine refuses; `Conflict` if the name is taken.
    #[tracing::instrument(name = "engine create_container", skip_all)]
    pub async fn create_container(&self, new: &NewContainer) -> Result<String, DockerError> {
        let options = CreateContainerOptions {
            name: Some(new.name.clone()),
            ..CreateContainerOptions::default()
        };
        let action = format!("create container {}", new.name);
        let body = self.body(new);
        let created = self
            .call(action, SLOW_TIMEOUT, async |docker| {
                docker.create_container(Some(options), body).await
            })
            .await?;
        for warning in created.warnings {
            tracing::warn!(container = %new.name, "the engine warns: {warning}");
        }
        Ok(created.id)
    }

    /// Starts a container; one that runs is fine.
    ///
    /// # Errors
    /// When the engine refuses.
    #[tracing::instrument(name = "engine start_container", skip_all)]
    pub async fn start_container(&self, id: &str) -> Result<(), DockerError> {
        self.call("start the container", SLOW_TIMEOUT, async |docker| {
            docker
                .start_container(id, None::<bollard::query_parameters::StartContainerOptions>)
                .await
        })
        .await
    }

    /// Stops a container: SIGTERM, after `grace` SIGKILL. One that is not there or has ended is fine.
    ///
    /// # Errors
    /// When the engine refuses.
    #[tracing::instrument(name = "engine stop_container", skip_all)]
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), DockerError> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let options = StopContainerOptions {
            signal: None,
            t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
        };
        self.find("stop the container", grace + STOP_MARGIN, async |docker| {
            docker.stop_container(id, Some(options)).await
        })
        .await
        .map(drop)
    }

    /// Removes a container with its anonymous volumes, running or not, and waits until it is gone. Named
    /// volumes stay.
    ///
    /// # Errors
    /// When the engine refuses or it is not gone in time.
    #[tracing::instrument(name = "engine remove_container", skip_all)]
    pub async fn remove_container(&self, id: &str) -> Result<(), DockerError> {
        let options = || RemoveContainerOptions {
            v: true,
            force: true,
            link: false,
        };
        let removed = self
            .find("remove the container", SLOW_TIMEOUT, async |docker| {
                docker.remove_container(id, Some(options())).await
            })
            .await;
        match removed {
            Ok(_) => Ok(()),
            // Somebody else is removing it.
            Err(error) if error.kind == DockerErrorKind::Conflict => {
                self.wait_gone(id, error).await
            }
            Err(error) => Err(error),
        }
    }

    async fn wait_gone(&self, id: &str, error: DockerError) -> Result<(), DockerError> {
        for _ in 0..50 {
            if self.inspect_container(id).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(error)
    }

    fn body(&self, new: &NewContainer) -> ContainerCreateBody {
        let memory = i64::try_from(new.memory_bytes).unwrap_or(i64::MAX);
        let port = format!("{}/tcp", new.publish.0);
        let binding = PortBinding {
            host_ip: Some(new.publish.1.to_string()),
            // Any free port.
            host_port: Some(String::new()),
        };
        let home = Mount {
            target: Some(HOME.to_owned()),
            source: Some(new.volume.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(false),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(!new.seed_home),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        };
        let labels = [
            (label::WORKSPACE, new.workspace.to_string()),
            (label::PREFIX, self.prefix().to_owned()),
            (label::OP_ID, new.op_id.to_string()),
            (label::ATTEMPT, new.attempt.to_string()),
        ];
        ContainerCreateBody {
            image: Some(new.image.clone()),
            hostname: Some(new.workspace.simple().to_string()[..12].to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v)).into()),
            exposed_ports: Some(vec![port.clone()]),
            host_config: Some(HostConfig {
                mounts: Some(vec![home]),
                nano_cpus: Some(i64::from(new.cpu_millis) * 1_000_000),
                memory: Some(memory),
                // Memory and swap together: no swap on top.
                memory_swap: Some(memory),
                pids_limit: Some(i64::from(new.pids)),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::NO),
                    maximum_retry_count: None,
                }),
                init: Some(true),
                port_bindings: Some(PortMap::from([(port, Some(vec![binding]))])),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}
