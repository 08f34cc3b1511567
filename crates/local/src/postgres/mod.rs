//! A private PostgreSQL cluster, made and run with the binaries of the system but none of its data.
//!
//! The cluster and the password of its superuser are one folder, put into place with one rename: a kill
//! while it is made leaves nothing half-made. A start from any state a killed run left succeeds.

mod cluster;

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::NoTls;

use crate::process::{Process, ProcessSpec};
use crate::{Error, ports, proc_fs};
use cluster::Binaries;

const SUPERUSER: &str = "postgres";
/// Recovery after a kill is part of becoming ready.
const READY: Duration = Duration::from_secs(120);
/// For a fast shutdown, which writes a checkpoint.
const GRACE: Duration = Duration::from_secs(30);

/// How PostgreSQL is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the cluster and its log; made if absent. When we are root, the user `postgres` must be able
    /// to reach it.
    pub dir: PathBuf,
    /// The port on 127.0.0.1; no Unix socket is made.
    pub port: u16,
    /// Created if absent. Default `windlass`.
    pub database: String,
    /// Whether a commit survives a power cut (a kill it survives either way). Default true; tests may not
    /// care.
    pub durable: bool,
    /// Killed by the kernel when this process ends. Default false.
    pub die_with_parent: bool,
    /// Folder for a template that is made once and copied into each new `dir`; shared between processes.
    pub template_cache: Option<PathBuf>,
    /// Further settings of postgresql.conf.
    pub settings: Vec<(String, String)>,
}

impl Config {
    /// The defaults, in `dir`, on `port`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, port: u16) -> Self {
        Self {
            dir: dir.into(),
            port,
            database: "windlass".to_owned(),
            durable: true,
            die_with_parent: false,
            template_cache: None,
            settings: Vec::new(),
        }
    }

    /// For a test: it ends with the test, does not care for power cuts, and is copied from a template that all
    /// tests of this machine share (outside the repository, where the user `postgres` can reach it).
    #[must_use]
    pub fn for_test(dir: impl Into<PathBuf>, port: u16) -> Self {
        Self {
            durable: false,
            die_with_parent: true,
            template_cache: Some(std::env::temp_dir().join("windlass-test-postgres")),
            ..Self::new(dir, port)
        }
    }
}

/// A running cluster; dropping it kills it (which loses no commit).
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    password: String,
    database: String,
}

impl Postgres {
    /// Makes the cluster if absent, starts it, waits until it accepts connections and creates the database.
    ///
    /// # Errors
    /// When PostgreSQL or its user is missing, the folder is closed to it, the port is taken, or it does not
    /// come up.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let data = config.dir.join("data");
        let user = cluster::server_user()?;
        cluster::prepare_dir(&config.dir, user)?;
        let data = absolute(&config.dir)?.join(data.file_name().unwrap_or_default());
        stop_leftover(&data).await;
        cluster::clean_unfinished(&config.dir)?;
        let binaries = Binaries::for_cluster(&data)?;
        if !data.exists() {
            cluster::create(&binaries, &data, user, config).await?;
        }
        let password = cluster::read_password(&data)?;
        ports::check_free(SocketAddr::from((Ipv4Addr::LOCALHOST, config.port)))?;
        let process = Process::spawn(&spec(config, &binaries, &data, user))?;
        let postgres = Self {
            process,
            port: config.port,
            password,
            database: config.database.clone(),
        };
        let ready = || async {
            let connected = postgres.connect("postgres").await;
            connected.map(drop).map_err(|e| cluster::explain(&e))
        };
        postgres.process.wait_ready(READY, ready).await?;
        postgres.ensure_database().await?;
        Ok(postgres)
    }

    /// Connects `tokio-postgres` to a database as superuser.
    async fn connect(
        &self,
        database: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user(SUPERUSER)
            .password(&self.password)
            .dbname(database)
            .connect_timeout(Duration::from_secs(5))
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn ensure_database(&self) -> Result<(), Error> {
        let failed = |source| Error::Database {
            what: format!("creating the database {}", self.database),
            source,
        };
        let client = self.connect("postgres").await.map_err(failed)?;
        let found = client
            .query_opt(
                "SELECT 1 FROM pg_database WHERE datname = $1",
                &[&self.database],
            )
            .await
            .map_err(failed)?;
        if found.is_none() {
            let name = self.database.replace('"', "\"\"");
            client
                .batch_execute(&format!("CREATE DATABASE \"{name}\""))
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    /// The URL of the database, as superuser, with the password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.database)
    }

    /// The URL of another database of the cluster.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let Self { password, port, .. } = self;
        format!("postgres://{SUPERUSER}:{password}@127.0.0.1:{port}/{database}")
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster, for those who kill it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Fast shutdown (open transactions are aborted), after 30 s SIGKILL.
    pub async fn stop(self) {
        self.process.stop(Signal::INT, GRACE).await;
    }
}

fn absolute(dir: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(dir).map_err(Error::io(dir))
}

fn spec(
    config: &Config,
    binaries: &Binaries,
    data: &Path,
    user: Option<crate::process::User>,
) -> ProcessSpec {
    let mut settings: Vec<(&str, &str)> = vec![
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
    ];
    if !config.durable {
        settings.extend([
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
        ]);
    }
    settings.extend(
        config
            .settings
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str())),
    );
    let log = config.dir.join("postgres.log");
    let mut spec = ProcessSpec::new("PostgreSQL", binaries.path("postgres"), log)
        .args(["-D".into(), data.as_os_str().to_owned()])
        .args(["-p", &config.port.to_string()]);
    for (name, value) in settings {
        spec = spec.args(["-c".to_owned(), format!("{name}={value}")]);
    }
    spec.current_dir = Some(data.to_owned());
    spec.env.push(("LC_ALL".into(), "C".into()));
    spec.pid_file = Some(config.dir.join("postgres.pid"));
    spec.user = user;
    spec.die_with_parent = config.die_with_parent;
    spec
}

/// Ends what a killed run left in the data folder: a postmaster that outlived its parent, or backends that
/// outlived their postmaster for a moment; then removes its pid file, whose pid may be anybody's by now.
async fn stop_leftover(data: &Path) {
    let mut seen = BTreeSet::new();
    let mut gone = || {
        seen.extend(proc_fs::working_in(data, "postgres"));
        seen.retain(|&(pid, started)| proc_fs::start_time(pid) == Some(started));
        seen.is_empty()
    };
    let running = || proc_fs::working_in(data, "postgres").into_iter();
    let pid_file = data.join("postmaster.pid");
    if !gone() {
        let postmaster = fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok());
        if let Some(pid) = postmaster.filter(|pid| running().any(|(found, _)| found == *pid)) {
            tracing::info!(pid, "stopping the PostgreSQL an earlier run left");
            proc_fs::signal(pid, Signal::INT);
            proc_fs::wait_until(GRACE, &mut gone).await;
        }
        if !proc_fs::wait_until(Duration::from_secs(2), &mut gone).await {
            for (pid, _) in running() {
                proc_fs::signal(pid, Signal::KILL);
            }
            proc_fs::wait_until(GRACE, &mut gone).await;
        }
    }
    if gone() {
        let _ = fs::remove_file(pid_file);
    }
}
