//! A whole Windlass for one test: its own PostgreSQL cluster, Redis, S3 store, service processes, and its
//! own names in the shared Docker engine. Dropping it takes everything away again, also when the test
//! panics; a test that is killed takes its processes with it.

use std::{
    collections::HashMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use uuid::Uuid;
use windlass_db::Bootstrap;
use windlass_embedded_s3::{Config as S3Config, EmbeddedS3, Running as S3};
use windlass_local::{
    docker::Engine,
    image,
    ports::free_ports,
    postgres::{self, Postgres},
    redis::{self, Redis},
};
use windlass_proto::v1::{
    CreateWorkspaceRequest, DeleteWorkspaceRequest, DesiredState, GetWorkspaceRequest, Phase,
    UpdateWorkspaceRequest, Workspace,
};

use crate::{Name, clients::Workspaces, services::Services, wait};

/// The image of test workspaces.
pub const IMAGE: &str = "windlass/demo:latest";
/// The bucket.
pub const BUCKET: &str = "windlass";
const S3_ACCESS_KEY: &str = "test";
const S3_SECRET_KEY: &str = "test-secret";
const PASSWORD: &str = "test-password";

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
        let postgres = start_postgres(dir.path(), pg_port).await;
        let redis = match options.without_redis {
            true => None,
            false => Some(start_redis(dir.path(), redis_port).await),
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
        migrate(&postgres, &token).await;

        let prefix = format!("wl-test-{}-", &Uuid::new_v4().simple().to_string()[..12]);
        let ports = Name::ALL
            .into_iter()
            .zip([p0, p1, p2, p3, p4, p5])
            .collect();
        let http_ports = Name::ALL.into_iter().zip(http_ports).collect();
        let mut env = environment(
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

    /// Waits until the api answers and the host was observed.
    pub async fn ready(&self) {
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
        migrate(&self.postgres, &self.token).await;
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
        psql(&self.postgres.url(), statement).expect("a valid statement")
    }

    /// Runs SQL as a service's role.
    pub fn sql_as(&self, role: &str, statement: &str) -> Result<String, String> {
        psql(&role_url(&self.postgres, role), statement)
    }

    /// Creates a workspace that should run.
    pub async fn create(&self, name: &str) -> Workspace {
        self.create_as(name, DesiredState::Running).await
    }

    /// Creates a workspace.
    pub async fn create_as(&self, name: &str, desired: DesiredState) -> Workspace {
        let workspace = Workspace {
            name: name.to_owned(),
            desired_state: desired.into(),
            ..Workspace::default()
        };
        let request = CreateWorkspaceRequest {
            workspace: Some(workspace),
            request_id: String::new(),
        };
        self.workspaces()
            .create_workspace(request)
            .await
            .expect("created")
            .into_inner()
    }

    /// The workspace as it is now.
    pub async fn get(&self, id: &str) -> Workspace {
        let request = GetWorkspaceRequest { id: id.to_owned() };
        self.workspaces()
            .get_workspace(request)
            .await
            .expect("found")
            .into_inner()
    }

    /// Says what a workspace should be.
    pub async fn desire(&self, id: &str, desired: DesiredState) -> Workspace {
        let workspace = Workspace {
            id: id.to_owned(),
            desired_state: desired.into(),
            ..Workspace::default()
        };
        self.update(workspace, &["desired_state"]).await
    }

    /// Changes fields of a workspace.
    pub async fn update(&self, workspace: Workspace, paths: &[&str]) -> Workspace {
        let request = UpdateWorkspaceRequest {
            workspace: Some(workspace),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|&p| p.to_owned()).collect(),
            }),
        };
        self.workspaces()
            .update_workspace(request)
            .await
            .expect("updated")
            .into_inner()
    }

    /// Deletes a workspace.
    pub async fn delete(&self, id: &str, discard_home: bool) -> Workspace {
        let request = DeleteWorkspaceRequest {
            id: id.to_owned(),
            etag: String::new(),
            discard_home,
        };
        self.workspaces()
            .delete_workspace(request)
            .await
            .expect("deleted")
            .into_inner()
    }

    /// Waits until a workspace is in `phase` with nothing in progress.
    pub async fn phase(&self, id: &str, phase: Phase) -> Workspace {
        self.until(id, &format!("{phase:?}"), |ws| {
            ws.phase() == phase && ws.operation() == windlass_proto::v1::Operation::None
        })
        .await
    }

    /// Waits until a workspace is as wanted. Survives the api being away meanwhile.
    pub async fn until(
        &self,
        id: &str,
        what: &str,
        wanted: impl Fn(&Workspace) -> bool,
    ) -> Workspace {
        let mut client: Workspaces = self.workspaces();
        let request = GetWorkspaceRequest { id: id.to_owned() };
        let what = format!("{what} of workspace {id}");
        wait::until(
            &what,
            async || {
                client
                    .get_workspace(request.clone())
                    .await
                    .map(|w| w.into_inner())
            },
            |answer| answer.as_ref().is_ok_and(&wanted),
        )
        .await
        .expect("the wanted answer is one")
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
    }
}

async fn start_postgres(dir: &Path, port: u16) -> Postgres {
    let mut config = postgres_config(dir, port);
    config.durable = false;
    Postgres::start(&config).await.expect("PostgreSQL")
}

/// A cluster below `dir` that ends with this process.
pub(crate) fn postgres_config(dir: &Path, port: u16) -> postgres::Config {
    let mut config = postgres::Config::new(dir.join("postgres"), port);
    config.die_with_parent = true;
    config.template_cache = Some(template_cache());
    config
}

/// One template for all tests of this machine, outside the repository: user postgres must reach it.
fn template_cache() -> PathBuf {
    std::env::temp_dir().join("windlass-test-postgres")
}

pub(crate) async fn start_redis(dir: &Path, port: u16) -> Redis {
    let config = redis::Config {
        dir: dir.join("redis"),
        port,
        die_with_parent: true,
    };
    Redis::start(&config).await.expect("Redis")
}

pub(crate) async fn migrate(postgres: &Postgres, token: &str) {
    use sha2::Digest as _;
    let roles = ["api", "observer", "wc", "ttl", "gc"];
    let bootstrap = Bootstrap {
        role_passwords: roles
            .map(|r| (format!("windlass_{r}"), PASSWORD.to_owned()))
            .to_vec(),
        admin: Some(("admin".to_owned(), sha2::Sha256::digest(token).into())),
    };
    windlass_db::migrate(&postgres.url(), &bootstrap)
        .await
        .expect("migrated");
}

fn role_url(postgres: &Postgres, role: &str) -> String {
    let url = postgres.url();
    let (_, host) = url.rsplit_once('@').expect("a URL with credentials");
    format!("postgres://windlass_{role}:{PASSWORD}@{host}")
}

pub(crate) fn environment(
    prefix: &str,
    token: &str,
    dir: &Path,
    postgres: &Postgres,
    redis: Option<&Redis>,
    s3: &S3Config,
) -> HashMap<String, String> {
    let mut env: HashMap<String, String> = [
        ("WINDLASS_PREFIX", prefix.to_owned()),
        ("WINDLASS_SERVICE_TOKEN", token.to_owned()),
        (
            "WINDLASS_AGENT_STATE_DIR",
            dir.join("agent").display().to_string(),
        ),
        ("WINDLASS_S3_ENDPOINT", format!("http://{}", s3.addr)),
        ("WINDLASS_S3_BUCKET", BUCKET.to_owned()),
        ("WINDLASS_S3_ACCESS_KEY_ID", s3.access_key.clone()),
        ("WINDLASS_S3_SECRET_ACCESS_KEY", s3.secret_key.clone()),
        ("WINDLASS_S3_PATH_STYLE", "true".to_owned()),
        ("WINDLASS_ARCHIVE_RESYNC", "1s".to_owned()),
        ("WINDLASS_DEFAULT_IMAGE", IMAGE.to_owned()),
        ("WINDLASS_MAX_RUNNING_PER_USER", "100".to_owned()),
        ("WINDLASS_MAX_WORKSPACES_PER_USER", "100".to_owned()),
        ("WINDLASS_LOG", "info".to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    for role in ["api", "observer", "wc", "ttl", "gc"] {
        env.insert(format!("DATABASE_URL_{role}"), role_url(postgres, role));
    }
    if let Some(redis) = redis {
        env.insert("WINDLASS_REDIS_URL".to_owned(), redis.url());
    }
    env
}

fn psql(url: &str, statement: &str) -> Result<String, String> {
    let output = std::process::Command::new("psql")
        .args([
            url,
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-c",
            statement,
        ])
        .output()
        .expect("the psql program");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}
