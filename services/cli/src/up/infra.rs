//! What the services stand on: a PostgreSQL cluster and a Redis of our own, kept running, and the S3 store
//! inside this process. Each keeps its port from start to start unless somebody else has it now.

mod folder;

use std::net::{Ipv4Addr, SocketAddr};

use windlass_embedded_s3::{Config as S3Config, EmbeddedS3, Running as S3};
use windlass_local::postgres::{Config as PostgresConfig, Postgres};
use windlass_local::redis::{Config as RedisConfig, Redis};
use windlass_local::{Error, ports};

use folder::{check_epochs, check_link, is_unused, put_elsewhere};

use super::keeper::{Keeper, Server};
use super::state::State;
use super::{BUCKET, failed};
use crate::args::UpArgs;
use crate::error::CliError;

impl Server for Postgres {
    type Config = PostgresConfig;
    const NAME: &'static str = "PostgreSQL";

    async fn start(config: &Self::Config) -> Result<Self, Error> {
        Self::start(config).await
    }
    async fn ended(&self) {
        self.process().wait().await;
    }
    async fn stop(self) {
        self.stop().await;
    }
}

impl Server for Redis {
    type Config = RedisConfig;
    const NAME: &'static str = "Redis";

    async fn start(config: &Self::Config) -> Result<Self, Error> {
        Self::start(config).await
    }
    async fn ended(&self) {
        self.process().wait().await;
    }
    async fn stop(self) {
        self.stop().await;
    }
}

/// All three.
#[derive(Debug)]
pub struct Infrastructure {
    postgres: Keeper,
    postgres_url: String,
    postgres_port: u16,
    redis: Keeper,
    redis_url: String,
    redis_port: u16,
    s3: S3,
}

impl Infrastructure {
    /// Starts all three.
    pub async fn start(state: &mut State, args: &UpArgs) -> Result<Self, CliError> {
        let (postgres, redis, s3) = tokio::join!(
            postgres(state, args.postgres_port),
            redis(state, args.redis_port),
            s3(state, args.s3_port),
        );
        let ((postgres, postgres_config), (redis, redis_config), s3) = (postgres?, redis?, s3?);
        state.remember(|remembered| {
            remembered.postgres_port = Some(postgres.port());
            remembered.redis_port = Some(redis.port());
            remembered.s3_port = Some(s3.addr.port());
        })?;
        Ok(Self {
            postgres_url: postgres.url(),
            postgres_port: postgres.port(),
            postgres: Keeper::new(postgres, postgres_config),
            redis_url: redis.url(),
            redis_port: redis.port(),
            redis: Keeper::new(redis, redis_config),
            s3,
        })
    }

    /// The database, as superuser, with the password.
    pub fn postgres_url(&self) -> String {
        self.postgres_url.clone()
    }

    /// The database, as the role of one service.
    pub fn role_url(&self, role: &str, password: &str) -> String {
        format!(
            "postgres://{role}:{password}@127.0.0.1:{}/windlass",
            self.postgres_port
        )
    }

    /// PostgreSQL's port on loopback.
    pub fn postgres_port(&self) -> u16 {
        self.postgres_port
    }

    /// Redis.
    pub fn redis_url(&self) -> String {
        self.redis_url.clone()
    }

    /// Redis' port on loopback.
    pub fn redis_port(&self) -> u16 {
        self.redis_port
    }

    /// The S3 store.
    pub fn s3_endpoint(&self) -> String {
        self.s3.endpoint()
    }

    /// Stops S3, Redis, then PostgreSQL.
    pub async fn stop(self) {
        self.s3.shutdown().await;
        self.redis.stop().await;
        self.postgres.stop().await;
    }
}

/// A URL that may be shown.
pub fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, place))) => {
            let user = rest.split([':', '@']).next().unwrap_or_default();
            format!("{scheme}://{user}@{place}")
        }
        _ => url.to_owned(),
    }
}

/// The port to try first, and whether another will do.
fn port(pinned: Option<u16>, remembered: Option<u16>) -> Result<(u16, bool), CliError> {
    match (pinned, remembered) {
        (Some(pinned), _) => Ok((pinned, false)),
        (None, Some(remembered)) => Ok((remembered, true)),
        (None, None) => Ok((ports::free_port().map_err(failed)?, true)),
    }
}

fn taken(error: impl std::fmt::Display, variable: &str) -> CliError {
    CliError::Failed(format!(
        "{error}: stop it, or set {variable} to another port"
    ))
}

async fn postgres(
    state: &State,
    pinned: Option<u16>,
) -> Result<(Postgres, PostgresConfig), CliError> {
    let (port, movable) = port(pinned, state.secrets().postgres_port)?;
    let dir = state.path("postgres");
    check_link(&dir)?;
    check_epochs(&dir, &state.path("agent"))?;
    let mut config = PostgresConfig::new(dir.clone(), port);
    config.die_with_parent = true;
    config.settings = vec![("max_connections".to_owned(), "200".to_owned())];
    let mut moved = false;
    loop {
        match Postgres::start(&config).await {
            Ok(postgres) => return Ok((postgres, config)),
            Err(Error::NotTraversable(_)) if !moved && is_unused(&dir) => {
                put_elsewhere(&dir)?;
                moved = true;
            }
            Err(Error::PortTaken { .. }) if movable && config.port == port => {
                config.port = ports::free_port().map_err(failed)?;
            }
            Err(error @ Error::PortTaken { .. }) => {
                return Err(taken(error, "WINDLASS_UP_POSTGRES_PORT"));
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

async fn redis(state: &State, pinned: Option<u16>) -> Result<(Redis, RedisConfig), CliError> {
    let (port, movable) = port(pinned, state.secrets().redis_port)?;
    let mut config = RedisConfig {
        dir: state.path("redis"),
        port,
        die_with_parent: true,
    };
    loop {
        match Redis::start(&config).await {
            Ok(redis) => return Ok((redis, config)),
            Err(Error::PortTaken { .. }) if movable && config.port == port => {
                config.port = ports::free_port().map_err(failed)?;
            }
            Err(error @ Error::PortTaken { .. }) => {
                return Err(taken(error, "WINDLASS_UP_REDIS_PORT"));
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

async fn s3(state: &State, pinned: Option<u16>) -> Result<S3, CliError> {
    let (port, movable) = port(pinned, state.secrets().s3_port)?;
    let mut config = S3Config {
        root: state.path("s3"),
        addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        access_key: state.secrets().s3_access_key.clone(),
        secret_key: state.secrets().s3_secret_key.clone(),
        buckets: vec![BUCKET.to_owned()],
    };
    match EmbeddedS3::start(config.clone()).await {
        Ok(running) => Ok(running),
        Err(windlass_embedded_s3::Error::PortTaken(_)) if movable => {
            config.addr.set_port(0);
            EmbeddedS3::start(config).await.map_err(failed)
        }
        Err(error @ windlass_embedded_s3::Error::PortTaken(_)) => {
            Err(taken(error, "WINDLASS_UP_S3_PORT"))
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deleted_database_is_told_apart_from_a_first_start() {
        let root = tempfile::tempdir().unwrap();
        let (dir, agent) = (root.path().join("postgres"), root.path().join("agent"));
        assert!(check_epochs(&dir, &agent).is_ok());
        std::fs::create_dir(&agent).unwrap();
        assert!(check_epochs(&dir, &agent).is_ok());
        std::fs::write(agent.join("epochs.json"), "{}").unwrap();
        let why = check_epochs(&dir, &agent).unwrap_err().to_string();
        assert!(
            why.contains("remove the whole of") && why.contains("epoch"),
            "{why}"
        );
        std::fs::create_dir_all(dir.join("data")).unwrap();
        assert!(check_epochs(&dir, &agent).is_ok());
    }

    fn args() -> UpArgs {
        UpArgs {
            state_dir: PathBuf::new(),
            port_base: 7400,
            postgres_port: None,
            redis_port: None,
            s3_port: None,
        }
    }

    async fn listens(port: u16) -> bool {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    }

    async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !condition().await {
            assert!(std::time::Instant::now() < end, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn pid(file: &Path) -> Option<i32> {
        let text = fs::read_to_string(file).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn starts_survives_a_kill_and_keeps_its_ports() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let dir = root.path().join("state");
        let mut state = State::open(&dir).unwrap();
        let infra = Infrastructure::start(&mut state, &args()).await.unwrap();
        let (postgres, redis) = (infra.postgres_port(), infra.redis_port());
        let s3 = state.secrets().s3_port.unwrap();
        for port in [postgres, redis, s3] {
            assert!(listens(port).await, "{port}");
        }

        // kill -9 of both is an ordinary event.
        let pid_files = [
            dir.join("postgres/postgres.pid"),
            dir.join("redis/redis.pid"),
        ];
        for (file, port) in pid_files.iter().zip([postgres, redis]) {
            let before = pid(file).unwrap();
            let raw = rustix::process::Pid::from_raw(before).unwrap();
            rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
            until("started again", || async move {
                pid(file).is_some_and(|now| now != before) && listens(port).await
            })
            .await;
        }
        infra.stop().await;
        for port in [postgres, redis, s3] {
            assert!(!listens(port).await, "{port}");
        }

        // The same ports again, unless somebody has one of them.
        let taken = std::net::TcpListener::bind(("127.0.0.1", redis)).unwrap();
        let infra = Infrastructure::start(&mut state, &args()).await.unwrap();
        assert_eq!(infra.postgres_port(), postgres);
        assert_ne!(infra.redis_port(), redis);
        infra.stop().await;

        let pinned = UpArgs {
            redis_port: Some(redis),
            ..args()
        };
        let error = Infrastructure::start(&mut state, &pinned)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("WINDLASS_UP_REDIS_PORT"),
            "{error}"
        );
        drop(taken);
    }

    #[test]
    fn a_lost_database_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("postgres");
        std::os::unix::fs::symlink(root.path().join("gone"), &link).unwrap();
        let error = check_link(&link).unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
        assert!(!is_unused(&link));
    }

    #[test]
    fn urls_are_shown_without_passwords() {
        assert_eq!(
            without_password("postgres://postgres:geheim@127.0.0.1:5/windlass"),
            "postgres://postgres@127.0.0.1:5/windlass"
        );
        assert_eq!(
            without_password("redis://127.0.0.1:6"),
            "redis://127.0.0.1:6"
        );
    }
}
