//! The engine, as far as the agent needs it: the only place that knows of bollard.
//!
//! What comes back is the agent's own types, so that the rest reads no engine JSON. Requests go out
//! unversioned (20.10 and later); every one has a bound. The engine may be away when the agent starts.

mod containers;
mod events;
mod images;
mod lists;
mod parse;
mod volumes;

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use uuid::Uuid;

use crate::error::bounded;

pub use containers::{ContainerInfo, HOME, Listed, NewContainer, State, User};
pub use events::EngineEvent;
pub use images::PullProgress;
pub use volumes::VolumeInfo;

const SYSTEM_SOCKET: &str = "unix:///var/run/docker.sock";
/// Longest time until the engine says that it is there: somebody waits to be told that it is not.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time an ordinary request may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time a request may take that makes, starts or removes something on a busy host.
const SLOW_TIMEOUT: Duration = Duration::from_secs(300);

const HANGING: &str = "the engine did not answer in time";

/// The labels of Windlass.
pub mod label {
    /// What all of them begin with.
    pub const OURS: &str = "dev.windlass.";
    /// Id of the workspace: on containers and volumes.
    pub const WORKSPACE: &str = "dev.windlass.workspace";
    /// The agent's prefix, for filtering at the engine: on containers and volumes.
    pub const PREFIX: &str = "dev.windlass.prefix";
    /// The operation that created a container.
    pub const OP_ID: &str = "dev.windlass.op-id";
    /// Its attempt.
    pub const ATTEMPT: &str = "dev.windlass.attempt";
    /// The volume_id of a home volume.
    pub const VOLUME_ID: &str = "dev.windlass.volume-id";
}

/// What a failed request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DockerErrorKind {
    /// The engine cannot be reached, did not answer in time, or broke off.
    Unreachable,
    /// No such container, volume or image.
    NotFound,
    /// In use, or the name is taken.
    Conflict,
    /// Anything else.
    Other,
}

/// A failed request, in the engine's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {message}")]
pub struct DockerError {
    /// What to do about it.
    pub kind: DockerErrorKind,
    /// What was tried.
    pub action: String,
    /// What the engine said; at most 2 KiB.
    pub message: String,
}

impl DockerError {
    fn new(action: impl Into<String>, error: EngineError) -> Self {
        use DockerErrorKind::{Conflict, NotFound, Other, Unreachable};
        let (kind, message) = match error {
            EngineError::DockerResponseServerError {
                status_code,
                message,
            } => {
                let kind = match status_code {
                    404 => NotFound,
                    409 => Conflict,
                    503 => Unreachable,
                    _ => Other,
                };
                (kind, message.trim().to_owned())
            }
            EngineError::DockerStreamError { error } => (Other, error),
            EngineError::RequestTimeoutError => (Unreachable, HANGING.to_owned()),
            EngineError::SocketNotFoundError(path) => {
                (Unreachable, format!("the engine's socket {path} is absent"))
            }
            error @ (EngineError::IOError { .. }
            | EngineError::HyperResponseError { .. }
            | EngineError::HyperLegacyError { .. }) => (Unreachable, chain(&error)),
            error => (Other, chain(&error)),
        };
        Self {
            kind,
            action: action.into(),
            message: bounded(message),
        }
    }

    /// The engine did not answer in time.
    pub fn hanging(action: impl Into<String>) -> Self {
        Self::unreachable(action, HANGING)
    }

    fn unreachable(action: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: DockerErrorKind::Unreachable,
            action: action.into(),
            message: message.into(),
        }
    }

    fn other(action: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: DockerErrorKind::Other,
            action: action.into(),
            message: message.into(),
        }
    }

    fn is_absent(&self) -> bool {
        self.kind == DockerErrorKind::NotFound
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// A handle on the engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    host: String,
    prefix: String,
    client: OnceLock<Docker>,
}

/// What the engine says of itself and its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInfo {
    /// Version of the engine.
    pub version: String,
    /// Processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The folder that holds the volumes' folder.
    pub root: Option<String>,
}

impl Engine {
    /// Prepares a client; nothing is connected here. `host` is in the form of DOCKER_HOST.
    pub fn new(host: Option<&str>, prefix: &str) -> Self {
        let given = |host: &str| (!host.is_empty()).then(|| host.to_owned());
        let host = host
            .and_then(given)
            .or_else(|| std::env::var("DOCKER_HOST").ok().as_deref().and_then(given))
            .unwrap_or_else(|| SYSTEM_SOCKET.to_owned());
        Self {
            inner: Arc::new(Inner {
                host,
                prefix: prefix.to_owned(),
                client: OnceLock::new(),
            }),
        }
    }

    /// Where the engine is.
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    /// What the names of this agent's things begin with.
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Whether the engine answers.
    ///
    /// # Errors
    /// Why not.
    pub async fn ping(&self) -> Result<(), DockerError> {
        self.call("reach the engine", PROBE_TIMEOUT, async |docker| {
            docker.ping().await.map(drop)
        })
        .await
    }

    /// What the engine says of itself.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn info(&self) -> Result<HostInfo, DockerError> {
        let info = self
            .call(
                "ask the engine about itself",
                PROBE_TIMEOUT,
                async |docker| docker.info().await,
            )
            .await?;
        Ok(HostInfo {
            version: info.server_version.unwrap_or_default(),
            cpus: info.ncpu.and_then(|n| n.try_into().ok()).unwrap_or(0),
            memory_bytes: info.mem_total.and_then(|n| n.try_into().ok()).unwrap_or(0),
            root: info.docker_root_dir,
        })
    }

    fn client(&self, timeout: Duration) -> Result<Docker, DockerError> {
        let docker = match self.inner.client.get() {
            Some(docker) => docker.clone(),
            None => {
                let docker = Docker::connect_with_host(&self.inner.host).map_err(|error| {
                    DockerError::new(format!("connect to {}", self.inner.host), error)
                })?;
                self.inner.client.get_or_init(|| docker).clone()
            }
        };
        Ok(docker.with_timeout(timeout))
    }

    /// One request, its whole answer within `timeout`.
    async fn call<T, F, Fut>(
        &self,
        action: impl Display,
        timeout: Duration,
        request: F,
    ) -> Result<T, DockerError>
    where
        F: FnOnce(Docker) -> Fut,
        Fut: Future<Output = Result<T, EngineError>>,
    {
        let docker = self.client(timeout)?;
        match tokio::time::timeout(timeout, request(docker)).await {
            Ok(result) => result.map_err(|error| DockerError::new(action.to_string(), error)),
            Err(_) => Err(DockerError::hanging(action.to_string())),
        }
    }

    /// As [`Engine::call`], where absence is an answer.
    async fn find<T, F, Fut>(
        &self,
        action: impl Display,
        timeout: Duration,
        request: F,
    ) -> Result<Option<T>, DockerError>
    where
        F: FnOnce(Docker) -> Fut,
        Fut: Future<Output = Result<T, EngineError>>,
    {
        match self.call(action, timeout, request).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A label that holds a UUID.
fn uuid_label<S: std::hash::BuildHasher>(
    labels: &std::collections::HashMap<String, String, S>,
    name: &str,
) -> Option<Uuid> {
    labels.get(name).and_then(|text| Uuid::try_parse(text).ok())
}
