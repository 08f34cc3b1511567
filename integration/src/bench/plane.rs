//! The services of one benchmark, as processes, on a PostgreSQL that makes commits durable and counts the
//! statements of each role, a Redis, and an S3 store behind a proxy that counts requests. With an engine
//! there is a real agent; without, hosts are registered by hand (simulated agents). `passes` has them make
//! passes, `cost` says what they used.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::NoTls;
use tonic::transport::Channel;
use uuid::Uuid;
use windlass_archive::store::{Store, StoreConfig};
use windlass_embedded_s3::{Config as S3Config, EmbeddedS3, Running as S3};
use windlass_local::{
    ports::free_ports,
    postgres::{self, Postgres},
    redis::Redis,
};
use windlass_proto::v1::{
    agent_service_client::AgentServiceClient, observer_service_client::ObserverServiceClient,
    wc_service_client::WcServiceClient, workspace_service_client::WorkspaceServiceClient,
};
use windlass_service::{AuthChannel, Secret};

use crate::{Name, clients::Workspaces, parts, proxy::Proxy, services::Services, wait, world};

/// The services that have no data plane.
pub const CONTROL: [Name; 5] = [Name::Api, Name::Observer, Name::Wc, Name::Ttl, Name::Gc];

/// How a plane differs from what users run: in nothing, unless said.
#[derive(Debug, Default)]
pub struct Setup {
    engine: Option<String>,
    env: Vec<(String, String)>,
}

impl Setup {
    /// Has a real agent for this engine (in the form of DOCKER_HOST).
    #[must_use]
    pub fn engine(mut self, host: &str) -> Self {
        self.engine = Some(host.to_owned());
        self
    }

    /// Sets a variable for all services.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// Running services.
#[derive(Debug)]
pub struct Plane {
    /// Prefix of everything in the engine.
    pub prefix: String,
    /// The admin's token, and the services'.
    pub token: String,
    /// The service processes.
    pub services: Services,
    /// A connection as the database's owner.
    pub sql: tokio_postgres::Client,
    pub(super) postgres: Postgres,
    redis: Redis,
    redis_port: u16,
    pub(super) s3_proxy: Proxy,
    s3: S3,
    store: StoreConfig,
    dir: TempDir,
}

impl Plane {
    /// Prepares everything; no service runs yet.
    ///
    /// # Panics
    /// When a part is missing.
    pub async fn prepare(setup: Setup) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        // PostgreSQL runs as another user when we are root, and has to pass through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("permissions");
        let [pg_port, redis_port, s3_port, p0, p1, p2, p3, p4, p5] =
            free_ports().expect("free ports");
        let http_ports: [u16; 6] = free_ports().expect("free ports");

        let settings = [
            ("shared_preload_libraries", "pg_stat_statements"),
            ("pg_stat_statements.track_utility", "off"),
            ("max_connections", "200"),
        ];
        let config = postgres::Config {
            durable: true,
            settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
            ..postgres::Config::for_test(dir.path().join("postgres"), pg_port)
        };
        let postgres = Postgres::start(&config).await.expect("PostgreSQL");
        let redis = parts::start_redis(dir.path(), redis_port).await;
        let mut s3_config = S3Config {
            root: dir.path().join("s3"),
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, s3_port)),
            access_key: "bench".to_owned(),
            secret_key: "bench-secret".to_owned(),
            buckets: vec![world::BUCKET.to_owned()],
        };
        let s3 = EmbeddedS3::start(s3_config.clone()).await.expect("S3");
        let store = StoreConfig {
            endpoint: Some(s3.endpoint()),
            bucket: world::BUCKET.to_owned(),
            force_path_style: true,
            credentials: Some((s3_config.access_key.clone(), s3_config.secret_key.clone())),
            ..StoreConfig::default()
        };
        let s3_proxy = Proxy::start(s3.addr).await;
        s3_config.addr = address_of(&s3_proxy.endpoint());

        let token = format!("wl_{}", Uuid::new_v4().simple());
        parts::migrate(&postgres, &token).await;
        let (sql, connection) = tokio_postgres::connect(&postgres.url(), NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        sql.batch_execute("CREATE EXTENSION pg_stat_statements")
            .await
            .expect("pg_stat_statements, of PostgreSQL's contrib modules");

        let prefix = format!("wl-bench-{}-", &Uuid::new_v4().simple().to_string()[..12]);
        let mut env = parts::environment(
            &prefix,
            &token,
            dir.path(),
            &postgres,
            Some(&redis),
            &s3_config,
        );
        // What the tests set to be quick, and what they allow.
        env.remove("WINDLASS_ARCHIVE_RESYNC");
        for limit in [
            "MAX_RUNNING",
            "MAX_RUNNING_PER_USER",
            "MAX_WORKSPACES_PER_USER",
        ] {
            env.insert(format!("WINDLASS_{limit}"), "1000000".to_owned());
        }
        if let Some(host) = setup.engine {
            env.insert("WINDLASS_DOCKER_HOST".to_owned(), host);
            let agent = format!("http://127.0.0.1:{p0}");
            env.insert("WINDLASS_AGENT_ADDRESS".to_owned(), agent);
        }
        env.extend(setup.env);
        let ports = Name::ALL
            .into_iter()
            .zip([p0, p1, p2, p3, p4, p5])
            .collect();
        let http_ports = Name::ALL.into_iter().zip(http_ports).collect();
        Self {
            services: Services::new(dir.path(), env, ports, http_ports),
            prefix,
            token,
            sql,
            postgres,
            redis,
            redis_port,
            s3_proxy,
            s3,
            store,
            dir,
        }
    }

    /// Starts services, and waits until each answers.
    pub async fn start(&mut self, names: &[Name]) {
        for &name in names {
            self.services.start(name);
        }
        for &name in names {
            let address = self.services.address(name);
            let address = address.trim_start_matches("http://").to_owned();
            let what = format!("the {} to listen", name.as_str());
            wait::until(
                &what,
                async || TcpStream::connect(&address).await.map(drop),
                Result::is_ok,
            )
            .await
            .expect("it listens");
        }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn channel(&self, name: Name, token: &str) -> AuthChannel {
        windlass_service::connect(&self.services.address(name), &Secret::from(token))
            .expect("a loopback address")
    }

    /// The api as the admin.
    pub fn workspaces(&self) -> Workspaces {
        self.workspaces_as(&self.token)
    }

    /// The api as whoever has this token, over a connection of its own.
    pub fn workspaces_as(&self, token: &str) -> Workspaces {
        WorkspaceServiceClient::new(self.channel(Name::Api, token))
    }

    /// A connection to a service, without a token.
    pub fn anonymous(&self, name: Name) -> Channel {
        windlass_service::channel(&self.services.address(name)).expect("a loopback address")
    }

    /// The agent.
    pub fn agent(&self) -> AgentServiceClient<AuthChannel> {
        AgentServiceClient::new(self.channel(Name::Agent, &self.token))
    }

    /// The observer.
    pub fn observer(&self) -> ObserverServiceClient<AuthChannel> {
        ObserverServiceClient::new(self.channel(Name::Observer, &self.token))
    }

    /// The workspace controller.
    pub fn wc(&self) -> WcServiceClient<AuthChannel> {
        WcServiceClient::new(self.channel(Name::Wc, &self.token))
    }

    /// Sends a hint over Redis, as a service would.
    ///
    /// # Panics
    /// When Redis is away.
    pub async fn hint(&self, channel: windlass_db::Channel) {
        let address = (Ipv4Addr::LOCALHOST, self.redis_port);
        let mut redis = TcpStream::connect(address).await.expect("Redis");
        let command = format!("PUBLISH {} -\r\n", channel.name());
        redis.write_all(command.as_bytes()).await.expect("sent");
        redis.read_u8().await.expect("an answer");
    }

    /// The store itself, past the proxy.
    ///
    /// # Panics
    /// When it is away.
    pub async fn store(&self) -> Store {
        Store::new(self.store.clone()).await.expect("a store")
    }

    /// One number from the database.
    ///
    /// # Panics
    /// When the query is wrong.
    pub async fn count(&self, query: &str) -> i64 {
        self.sql.query_one(query, &[]).await.expect(query).get(0)
    }

    /// Asks every millisecond until a count is as wanted.
    ///
    /// # Panics
    /// When it is not for five minutes.
    pub async fn count_until(&self, query: &str, wanted: i64) {
        let began = Instant::now();
        let query = self.sql.prepare(query).await.expect("a query");
        loop {
            let row = self.sql.query_one(&query, &[]).await.expect("a count");
            let count: i64 = row.get(0);
            if count == wanted {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(300),
                "waited in vain for {wanted}: {count}\n{}",
                self.services.logs()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The process of a service.
    pub fn pid(&self, name: Name) -> i32 {
        self.services.pid(name)
    }

    /// Ends what runs, PostgreSQL last.
    pub async fn stop(mut self) {
        for name in Name::ALL {
            if self.services.is_running(name) {
                self.services.stop(name).await;
            }
        }
        self.redis.stop().await;
        self.postgres.stop().await;
        self.s3.shutdown().await;
    }
}

fn address_of(endpoint: &str) -> SocketAddr {
    let address = endpoint.trim_start_matches("http://");
    address.parse().expect("an address")
}
