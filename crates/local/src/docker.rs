//! Finding a Docker engine, calling it through the `docker` program, and starting a private one.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::process::{Process, ProcessSpec, stop_stale};
use crate::{Error, find, proc_fs};

const SYSTEM_SOCKET: &str = "unix:///var/run/docker.sock";
const PING: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(60);
/// An engine stops its containers first.
const GRACE: Duration = Duration::from_secs(30);
/// What fits into sockaddr_un.
const SOCKET_PATH: usize = 107;

/// An engine that answered.
#[derive(Debug, Clone)]
pub struct Engine {
    host: String,
}

impl Engine {
    /// The engine at the socket given, else at DOCKER_HOST, else at the system's socket.
    ///
    /// # Errors
    /// When nothing answers there, or not to us.
    pub async fn locate(socket: Option<&Path>) -> Result<Self, Error> {
        let host = match socket {
            Some(path) => format!("unix://{}", path.display()),
            None => std::env::var("DOCKER_HOST")
                .ok()
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| SYSTEM_SOCKET.to_owned()),
        };
        let engine = Self { host };
        engine.ping().await?;
        Ok(engine)
    }

    /// In the form of DOCKER_HOST.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// [`Error::DockerMissing`] or [`Error::DockerDenied`].
    pub async fn ping(&self) -> Result<(), Error> {
        let missing = |reason: String| Error::DockerMissing {
            host: self.host.clone(),
            reason,
        };
        let Some(path) = self.host.strip_prefix("unix://") else {
            let answer = self.cli(["version", "--format", "{{.Server.Version}}"]);
            return match answer.await {
                Ok(_) => Ok(()),
                Err(Error::Command { message, .. }) => Err(missing(message)),
                Err(other) => Err(other),
            };
        };
        match tokio::time::timeout(PING, ping_socket(Path::new(path))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => Err(Error::DockerDenied {
                host: self.host.clone(),
            }),
            Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => {
                Err(missing("no such socket".to_owned()))
            }
            Ok(Err(e)) => Err(missing(e.to_string())),
            Err(_) => Err(missing(format!("no answer in {} s", PING.as_secs()))),
        }
    }

    /// The `docker` program for this engine, ready for arguments.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn command(&self) -> Result<Command, Error> {
        let mut command = Command::new(find::program("docker", "docker.io")?);
        command
            .env("DOCKER_HOST", &self.host)
            .env_remove("DOCKER_CONTEXT");
        Ok(command)
    }

    /// Runs `docker` to its end and returns what it printed, trimmed.
    ///
    /// # Errors
    /// What it said when it failed.
    pub async fn cli<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String, Error> {
        let mut command = self.command()?;
        command.args(args);
        let mut shown = String::from("docker");
        for arg in command.as_std().get_args().take(3) {
            shown.push(' ');
            shown.push_str(&arg.to_string_lossy());
        }
        let output = find::run(&mut command, &shown).await?;
        Ok(output.trim().to_owned())
    }
}

async fn ping_socket(path: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(path).await?;
    stream
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    Err(io::Error::other("something else than Docker answers"))
}

/// A private engine. Dropping it kills it; its containers are gone with the next start.
#[derive(Debug)]
pub struct PrivateEngine {
    engine: Engine,
    /// None if it ran already.
    process: Option<Process>,
}

impl PrivateEngine {
    /// How to reach it.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The process, if this call started it.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Stops the engine if it was started here: SIGTERM, after 30 s SIGKILL.
    pub async fn stop(self) {
        if let Some(process) = self.process {
            process.stop(Signal::TERM, GRACE).await;
        }
    }
}

/// How a private engine is started.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Its folder: images, containers, socket, log; made if absent.
    pub dir: PathBuf,
    /// Killed by the kernel when this process ends.
    pub die_with_parent: bool,
    /// Runs in a network namespace of its own, so that it cannot touch the bridge and firewall of another
    /// engine on the machine; containers then have no way out, and no port of theirs is reachable from
    /// outside. For tests. (`--bridge=none` is no substitute: dockerd then deletes the machine's `docker0`.)
    pub isolated_network: bool,
    /// Further arguments of dockerd.
    pub extra_args: Vec<String>,
}

/// The socket of a private engine in `dir`.
#[must_use]
pub fn private_socket(dir: &Path) -> PathBuf {
    dir.join("docker.sock")
}

/// Starts a private engine that listens on `<dir>/docker.sock` only; if one answers there already (of an
/// earlier run), that one is used and left running.
///
/// # Errors
/// When we are not root, dockerd is not installed, or it does not come up.
pub async fn start_engine(config: &EngineConfig) -> Result<PrivateEngine, Error> {
    fs::create_dir_all(&config.dir).map_err(Error::io(&config.dir))?;
    let dir = fs::canonicalize(&config.dir).map_err(Error::io(&config.dir))?;
    let socket = private_socket(&dir);
    if socket.as_os_str().len() > SOCKET_PATH {
        return Err(Error::SocketPath(socket));
    }
    let engine = Engine {
        host: format!("unix://{}", socket.display()),
    };
    if engine.ping().await.is_ok() {
        return Ok(PrivateEngine {
            engine,
            process: None,
        });
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::DockerNeedsRoot);
    }
    let program = find::program("dockerd", "docker.io")?;
    let pid_file = dir.join("engine.pid");
    stop_stale(&pid_file, GRACE).await;
    forget_pid_file(&dir.join("dockerd.pid"));
    let path = |name: &str| dir.join(name).into_os_string();
    let log = dir.join("dockerd.log");
    let name = "the Docker engine";
    let spec = if config.isolated_network {
        // Execs, so the pid stays.
        ProcessSpec::new(name, find::program("unshare", "util-linux")?, log)
            .args(["--net", "--"])
            .args([program])
    } else {
        ProcessSpec::new(name, program, log)
    };
    let mut spec = spec
        .args(["--data-root".into(), path("data")])
        .args(["--exec-root".into(), path("exec")])
        .args(["--pidfile".into(), path("dockerd.pid")])
        .args(["-H", engine.host()])
        .args(&config.extra_args);
    spec.pid_file = Some(pid_file);
    spec.die_with_parent = config.die_with_parent;
    let process = Process::spawn(&spec)?;
    let ready = || async { engine.ping().await.map_err(|e| e.to_string()) };
    process.wait_ready(READY, ready).await?;
    Ok(PrivateEngine {
        engine,
        process: Some(process),
    })
}

/// dockerd refuses to start while its old pid belongs to anybody.
fn forget_pid_file(path: &Path) {
    let pid = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    if pid.is_some_and(|pid| proc_fs::program(pid).as_deref() != Some("dockerd")) {
        let _ = fs::remove_file(path);
    }
}
