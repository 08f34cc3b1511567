//! What can go wrong on a user's machine, each told in one line with what to do about it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a local part could not be found, started or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No `postgres` and `initdb` in Debian's folders or on the PATH.
    #[error("PostgreSQL server binaries not found: install the package postgresql")]
    PostgresMissing,
    /// The cluster needs a version that is not installed.
    #[error(
        "the database in {} was made by PostgreSQL {version}, which is not installed: install the package postgresql-{version}",
        dir.display()
    )]
    PostgresVersion {
        /// The cluster's folder.
        dir: PathBuf,
        /// Its major version.
        version: String,
    },
    /// We are root, PostgreSQL refuses root, and there is nobody else to run it.
    #[error(
        "PostgreSQL does not run as root and there is no user `postgres`: install the package postgresql, or do not run as root"
    )]
    PostgresUser,
    /// PostgreSQL's user cannot reach its own data.
    #[error(
        "PostgreSQL runs as user `postgres` here, to whom {} is closed: choose another folder, or `chmod o+x {}`",
        .0.display(), .0.display()
    )]
    NotTraversable(PathBuf),
    /// A program is not installed.
    #[error("{program} not found: install the package {package}")]
    ProgramMissing {
        /// The program looked for.
        program: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// Something listens there already.
    #[error("port {} of {} is taken{}", addr.port(), addr.ip(), owner.as_ref().map(|o| format!(" by {o}")).unwrap_or_default())]
    PortTaken {
        /// The address wanted.
        addr: SocketAddr,
        /// Process id and program, where they can be found out.
        owner: Option<String>,
    },
    /// A server ended before it was ready.
    #[error("{name} stopped at start ({status}): {tail} (log: {})", log.display())]
    Died {
        /// Which server.
        name: String,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        tail: String,
        /// Its log.
        log: PathBuf,
    },
    /// A server did not become ready in time.
    #[error("{name} was not ready after {seconds} s: {tail} (log: {})", log.display())]
    NotReady {
        /// Which server.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// The last lines of its log, or the last refusal.
        tail: String,
        /// Its log.
        log: PathBuf,
    },
    /// A helper program failed.
    #[error("`{command}` failed: {message}")]
    Command {
        /// What was run, without secrets.
        command: String,
        /// What it said.
        message: String,
    },
    /// No Docker engine answers.
    #[error("no Docker engine at {host}: start Docker or set DOCKER_HOST ({reason})")]
    DockerMissing {
        /// The endpoint tried.
        host: String,
        /// What happened there.
        reason: String,
    },
    /// The engine is there but not for us.
    #[error(
        "permission denied at the Docker engine {host}: add yourself to the group `docker` (and log in again), or run as root"
    )]
    DockerDenied {
        /// The endpoint tried.
        host: String,
    },
    /// A private engine needs root.
    #[error("starting a Docker engine needs root: start Docker as a service, or run as root")]
    DockerNeedsRoot,
    /// The path of a Unix socket would be cut off by the system.
    #[error("the path {} is too long for a socket (107 bytes): choose a shorter folder", .0.display())]
    SocketPath(PathBuf),
    /// The demo image is made of a static busybox.
    #[error("{} is not a static busybox: install the package busybox-static", .0.display())]
    BusyboxDynamic(PathBuf),
    /// PostgreSQL answered with an error.
    #[error("PostgreSQL: {what}: {source}")]
    Database {
        /// What was tried.
        what: String,
        /// PostgreSQL's answer.
        source: tokio_postgres::Error,
    },
    /// A file or folder could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A background task ended unexpectedly.
    #[error("an internal task failed: {0}")]
    Internal(String),
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
