//! A whole Windlass for one test: its own PostgreSQL cluster, Redis, S3 store, service processes, and its
//! own names in the shared Docker engine. Dropping it takes everything away again, also when the test
//! panics; a test that is killed takes its processes with it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use tempfile::TempDir;
use tokio::net::TcpStream;
use uuid::Uuid;
use windlass_embedded_s3::{Config as S3Config, EmbeddedS3, Running as S3};
use windlass_local::{docker::Engine, image, ports::free_ports, postgres::Postgres, redis::Redis};

use crate::{Name, parts, services::Services, wait};

/// The image of test workspaces.
pub const IMAGE: &str = "windlass/demo:latest";
/// The bucket.
pub const BUCKET: &str = "windlass";
const S3_ACCESS_KEY: &str = "test";
const S3_SECRET_KEY: &str = "test-secret";

/// How a world differs from the default.
#[derive(Debug, Default)]
pub struct Options {
    env: Vec<(String, String)>,
    without_redis: bool,
}

impl Options {
    /// Sets a variable for all services.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Has no Redis: hints travel over PostgreSQL.
    #[must_use]
    pub fn without_redis(mut self) -> Self {
        self.without_redis = true;
        self
    }

    /// Starts the world.
    pub async fn start(self) -> World {
        World::with(self).await
    }
}

/// A whole Windlass.
#[derive(Debug)]
pub struct World {
    /// Prefix of everything of this world in the engine.
    pub prefix: String,
    /// The admin's token, and the services'.
    pub token: String,
    /// The engine.
    pub engine: Engine,
    /// The service processes.
    pub services: Services,
    /// The database.
    pub postgres: Postgres,
    redis: Option<Redis>,
    s3: Option<S3>,
    s3_config: S3Config,
    dir: TempDir,
}

impl World {
    /// Options to start a world with.
    pub fn options() -> Options {
        Options::default()
    }

    /// Starts a world of default settings.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let engine = Engine::locate(None).await.expect("a Docker engine");
        image::ensure_demo_image(&engine, IMAGE)
            .await
            .expect("the demo image");
        let dir = tempfile::tempdir().expect("a temporary folder");
        // PostgreSQL runs as another user when we are root, and has to pass through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("permissions");

        let [pg_port, redis_port, s3_port, p0, p1, p2, p3, p4, p5] =
            free_ports().expect("free ports");
        let http_ports: [u16; 6] = free_ports().expect("free ports");
        let postgres = parts::start_postgres(dir.path(), pg_port).await;
        let redis = match options.without_redis {
            true => None,
            false => Some(parts::start_redis(dir.path(), redis_port).await),
        };
        let s3_config = S3Config {
            root: dir.path().join("s3"),
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, s3_port)),
            access_key: S3_ACCESS_KEY.to_owned(),
            secret_key: S3_SECRET_KEY.to_owned(),
            buckets: vec![BUCKET.to_owned()],
        };
        let s3 = EmbeddedS3::start(s3_config.clone())
            .await
            .expect("the S3 store");
        let token = format!("wl_{}", Uuid::new_v4().simple());
        parts::migrate(&postgres, &token).await;

        let prefix = format!("wl-test-{}-", &Uuid::new_v4().simple().to_string()[..12]);
        let ports = Name::ALL
            .into_iter()
            .zip([p0, p1, p2, p3, p4, p5])
            .collect();
        let http_ports = Name::ALL.into_iter().zip(http_ports).collect();
        let mut env = parts::environment(
            &prefix,
            &token,
            dir.path(),
            &postgres,
            redis.as_ref(),
            &s3_config,
        );
        env.insert("WINDLASS_DOCKER_HOST".to_owned(), engine.host().to_owned());
        env.insert(
            "WINDLASS_AGENT_ADDRESS".to_owned(),
            format!("http://127.0.0.1:{p0}"),
        );
        env.extend(options.env);
        let mut services = Services::new(dir.path(), env, ports, http_ports);
        for name in Name::ALL {
            services.start(name);
        }
        let world = Self {
            prefix,
            token,
            engine,
            services,
            postgres,
            redis,
            s3: Some(s3),
            s3_config,
            dir,
        };
        world.ready().await;
        world
    }

    /// Waits until every service listens and the host was observed.
    pub async fn ready(&self) {
        for name in Name::ALL {
            for address in self.services.listens_at(name) {
                wait::until(
                    name.as_str(),
                    async || TcpStream::connect(address).await.map(drop),
                    Result::is_ok,
                )
                .await
                .expect("it listens");
            }
        }
        wait::until(
            "an observed host",
            async || {
                let request = windlass_proto::v1::ListHostsRequest {};
                let hosts = self.hosts().list_hosts(request).await;
                hosts.map(|h| h.into_inner().hosts)
            },
            |hosts| {
                let observed = |h: &windlass_proto::v1::Host| h.observe_time.is_some();
                hosts.as_ref().is_ok_and(|h| h.iter().any(observed))
            },
        )
        .await
        .expect("a list of hosts");
    }

    /// Stops every service, and loses everything that is in the database but its schema, the admin and the
    /// roles' passwords. Bucket, engine and the agent's own folder stay.
    pub async fn lose_database(&mut self) {
        for name in Name::ALL {
            self.services.stop(name).await;
        }
        self.sql("DROP SCHEMA public CASCADE");
        self.sql("CREATE SCHEMA public");
        parts::migrate(&self.postgres, &self.token).await;
    }

    /// Starts every service again.
    pub async fn start_services(&mut self) {
        for name in Name::ALL {
            self.services.start(name);
        }
        self.ready().await;
    }

    /// Where a service listens.
    pub fn address(&self, name: Name) -> String {
        self.services.address(name)
    }

    /// Where it serves metrics and health.
    pub fn http_address(&self, name: Name) -> SocketAddr {
        self.services.http_address(name)
    }

    /// The folder of this world.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Takes the S3 store away.
    pub async fn stop_s3(&mut self) {
        self.s3.take().expect("the store runs").shutdown().await;
    }

    /// Brings it back as it was.
    pub async fn start_s3(&mut self) {
        let store = EmbeddedS3::start(self.s3_config.clone()).await;
        self.s3 = Some(store.expect("the S3 store"));
    }

    /// Takes Redis away.
    pub async fn stop_redis(&mut self) {
        self.redis.take().expect("Redis runs").stop().await;
    }

    /// A client of the store itself, beside the agent.
    pub async fn store(&self) -> windlass_archive::store::Store {
        let config = windlass_archive::store::StoreConfig {
            endpoint: Some(format!("http://{}", self.s3_config.addr)),
            bucket: BUCKET.to_owned(),
            force_path_style: true,
            credentials: Some((S3_ACCESS_KEY.to_owned(), S3_SECRET_KEY.to_owned())),
            ..windlass_archive::store::StoreConfig::default()
        };
        windlass_archive::store::Store::new(config)
            .await
            .expect("a store")
    }

    /// Keys of everything in the bucket.
    pub async fn keys(&self) -> Vec<String> {
        let objects = self.store().await.list("").await.expect("a listing");
        objects.into_iter().map(|o| o.key).collect()
    }

    /// Runs SQL as the database's owner; the answer's lines, columns separated by `|`.
    pub fn sql(&self, statement: &str) -> String {
        parts::psql(&self.postgres.url(), statement).expect("a valid statement")
    }

    /// Runs SQL as a service's role.
    pub fn sql_as(&self, role: &str, statement: &str) -> Result<String, String> {
        parts::psql(&parts::role_url(&self.postgres, role), statement)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.services.logs());
        }
        // First, or they make anew what is removed here.
        self.services.kill_all();
        let all = |kind: &[&str]| {
            let mut args = kind.to_vec();
            let filter = format!("name={}", self.prefix);
            args.extend(["-q", "--filter", &filter]);
            let ids = self.try_docker(&args).unwrap_or_default();
            ids.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        // What cannot be removed is left to be seen: there is nobody to tell.
        for container in all(&["container", "ls", "-a"]) {
            let _ = self.try_docker(&["rm", "-f", &container]);
        }
        for volume in all(&["volume", "ls"]) {
            let _ = self.try_docker(&["volume", "rm", &volume]);
        }
        let images = format!("reference={}*", self.prefix);
        let images = self.try_docker(&["image", "ls", "-q", "--filter", &images]);
        for image in images.unwrap_or_default().lines() {
            let _ = self.try_docker(&["image", "rm", image]);
        }
    }
}
