//! A server with its database, and clients of several users.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_postgres::{Client as Sql, NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};
use windlass_api::Config;
use windlass_db::{Bootstrap, migrate};
use windlass_local::{
    ports,
    postgres::{Config as PostgresConfig, Postgres},
};
use windlass_proto::v1::{
    self, host_service_client::HostServiceClient, workspace_service_client::WorkspaceServiceClient,
};
use windlass_service::{
    AuthChannel, Secret, ServerArgs, connect,
    error::{metadata_of, reason_of},
};

pub const ROLE_PASSWORD: &str = "api-password";
pub const PATIENCE: Duration = Duration::from_secs(30);

pub type Workspaces = WorkspaceServiceClient<AuthChannel>;
pub type Hosts = HostServiceClient<AuthChannel>;

pub struct Database {
    pub config: PostgresConfig,
    pub postgres: Option<Postgres>,
    _dir: tempfile::TempDir,
}

/// PostgreSQL with the schema, host `h1`, and users `ann`, `bob` and admin `root`, whose tokens are their
/// names.
pub async fn database() -> Database {
    let dir = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .unwrap();
    let config = PostgresConfig::for_test(dir.path().join("pg"), ports::free_port().unwrap());
    let postgres = Postgres::start(&config).await.unwrap();
    let bootstrap = Bootstrap {
        role_passwords: vec![("windlass_api".to_owned(), ROLE_PASSWORD.to_owned())],
        admin: None,
    };
    migrate(&postgres.url(), &bootstrap).await.unwrap();
    let database = Database {
        config,
        postgres: Some(postgres),
        _dir: dir,
    };
    database
        .sql(
            "INSERT INTO hosts (name, address) VALUES ('h1', 'http://127.0.0.1:1');
             INSERT INTO users (name, role) VALUES ('ann', 'user'), ('bob', 'user'), ('root', 'admin');
             INSERT INTO tokens (user_id, sha256) SELECT id, sha256(name::bytea) FROM users",
        )
        .await;
    database
}

impl Database {
    pub async fn client(&self) -> Sql {
        let url = self.postgres.as_ref().unwrap().url();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs SQL as superuser and returns the first column.
    pub async fn sql(&self, sql: &str) -> Vec<String> {
        let rows = self.client().await.simple_query(sql).await.unwrap();
        rows.iter()
            .filter_map(|row| match row {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
                _ => None,
            })
            .collect()
    }

    pub async fn set(&self, id: &str, columns: &str) {
        self.sql(&format!(
            "UPDATE workspaces SET {columns} WHERE id = '{id}'"
        ))
        .await;
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://windlass_api:{ROLE_PASSWORD}@127.0.0.1:{}/windlass",
            self.config.port
        )
    }

    pub fn api_config(&self) -> Config {
        Config {
            server: ServerArgs {
                http_listen: Some(([127, 0, 0, 1], ports::free_port().unwrap()).into()),
                ..ServerArgs::default()
            },
            database_url: self.url().into(),
            redis_url: None,
            service_token: None,
            database_pool_size: 8,
            default_image: "windlass/demo:latest".to_owned(),
            max_running_per_user: 1000,
            max_running: 1000,
            max_workspaces_per_user: 1000,
            standby_ttl: Duration::from_secs(600),
            archive_ttl: Duration::from_secs(1800),
            max_retries: 3,
            operation_timeout: Duration::from_secs(600),
            stale_after: Duration::from_secs(60),
            agent_address: None,
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub http: SocketAddr,
    pub shutdown: CancellationToken,
    pub run: JoinHandle<anyhow::Result<()>>,
}

pub async fn serve(config: Config) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let http = config.server.http_listen.unwrap();
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(windlass_api::run(config, listener, shutdown.clone()));
    Server {
        address,
        http,
        shutdown,
        run,
    }
}

impl Server {
    fn channel(&self, token: &str) -> AuthChannel {
        connect(&self.address.to_string(), &Secret::new(token)).unwrap()
    }

    pub fn workspaces(&self, token: &str) -> Workspaces {
        Workspaces::new(self.channel(token))
    }

    pub fn hosts(&self, token: &str) -> Hosts {
        Hosts::new(self.channel(token))
    }

    /// Status of /readyz and its body.
    pub async fn readyz(&self) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let Ok(mut stream) = tokio::net::TcpStream::connect(self.http).await else {
            return (0, String::new());
        };
        let request = "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        (status, body.to_owned())
    }
}

/// Everything with the default configuration.
pub struct Env {
    pub db: Database,
    pub server: Server,
    pub ann: Workspaces,
    pub bob: Workspaces,
    pub root: Workspaces,
}

pub async fn env() -> Env {
    env_with(|_| {}).await
}

pub async fn env_with(change: impl FnOnce(&mut Config)) -> Env {
    let db = database().await;
    let mut config = db.api_config();
    change(&mut config);
    let server = serve(config).await;
    Env {
        ann: server.workspaces("ann"),
        bob: server.workspaces("bob"),
        root: server.workspaces("root"),
        db,
        server,
    }
}

pub fn named(name: &str) -> v1::Workspace {
    v1::Workspace {
        name: name.to_owned(),
        ..v1::Workspace::default()
    }
}

pub async fn try_create(
    client: &Workspaces,
    workspace: v1::Workspace,
) -> Result<v1::Workspace, Status> {
    let request = v1::CreateWorkspaceRequest {
        workspace: Some(workspace),
        request_id: String::new(),
    };
    let created = client.clone().create_workspace(request).await;
    created.map(Response::into_inner)
}

pub async fn create(client: &Workspaces, name: &str) -> v1::Workspace {
    try_create(client, named(name)).await.unwrap()
}

pub async fn get(client: &Workspaces, id: &str) -> Result<v1::Workspace, Status> {
    let request = v1::GetWorkspaceRequest { id: id.to_owned() };
    let got = client.clone().get_workspace(request).await;
    got.map(Response::into_inner)
}

pub async fn update(
    client: &Workspaces,
    workspace: v1::Workspace,
    paths: &[&str],
) -> Result<v1::Workspace, Status> {
    let request = v1::UpdateWorkspaceRequest {
        workspace: Some(workspace),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        }),
    };
    let updated = client.clone().update_workspace(request).await;
    updated.map(Response::into_inner)
}

pub async fn describe(client: &Workspaces, id: &str, text: &str) -> v1::Workspace {
    let workspace = v1::Workspace {
        id: id.to_owned(),
        description: text.to_owned(),
        ..v1::Workspace::default()
    };
    update(client, workspace, &["description"]).await.unwrap()
}

pub async fn delete(client: &Workspaces, id: &str) -> Result<v1::Workspace, Status> {
    let request = v1::DeleteWorkspaceRequest {
        id: id.to_owned(),
        ..Default::default()
    };
    let deleted = client.clone().delete_workspace(request).await;
    deleted.map(Response::into_inner)
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(reason_of(&status).as_deref(), Some(reason), "{status:?}");
}

#[track_caller]
pub fn invalid<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(metadata_of(&status, "field").as_deref(), Some(field));
    assert!(status.message().starts_with(&format!("{field}: ")));
}

/// Waits for something that must come.
pub async fn eventually<F, Fut>(what: &str, mut done: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let end = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub const NOBODYS_ID: &str = "00000000-0000-4000-8000-000000000000";
