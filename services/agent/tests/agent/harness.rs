//! An agent of its own for each test, with its own prefix and store, cleaned up whatever happens.

mod calls;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use windlass_agent::Config;
use windlass_archive::{Store, StoreConfig};
use windlass_embedded_s3::{EmbeddedS3, Running};
use windlass_local::docker::Engine;
use windlass_local::image::ensure_demo_image;
use windlass_proto::v1::agent_service_client::AgentServiceClient;
use windlass_service::{AuthChannel, Secret, connect};

pub const DEMO: &str = "windlass/demo:agent-tests";
pub const TOKEN: &str = "agent-tests";
const PATIENCE: Duration = Duration::from_secs(60);

static IMAGE: OnceCell<()> = OnceCell::const_new();

pub type Client = AgentServiceClient<AuthChannel>;

use crate::crashes::AgentProcess;
pub use calls::{attempt, context, refused};

/// One host.
pub struct Fixture {
    pub prefix: String,
    pub engine: Engine,
    pub s3: Option<Running>,
    folder: tempfile::TempDir,
    args: Vec<String>,
    running: Option<Instance>,
    process: Option<AgentProcess>,
    _cleanup: Cleanup,
}

struct Instance {
    client: Client,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Removes what a test left, by name, even if it panicked.
struct Cleanup {
    host: String,
    prefix: String,
    images: std::sync::Mutex<Vec<String>>,
}

impl Cleanup {
    fn docker(&self, args: &[&str]) -> Vec<String> {
        let output = Command::new("docker")
            .env("DOCKER_HOST", &self.host)
            .args(args)
            .output();
        let text = output.map(|o| o.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let name = format!("name={}", self.prefix);
        for id in self.docker(&["ps", "-aq", "--filter", &name]) {
            self.docker(&["rm", "-f", "-v", &id]);
        }
        for volume in self.docker(&["volume", "ls", "-q", "--filter", &name]) {
            self.docker(&["volume", "rm", "-f", &volume]);
        }
        for image in self.images.lock().unwrap().iter() {
            self.docker(&["rmi", "-f", image]);
        }
    }
}

impl Fixture {
    /// An agent with a store.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same with further flags.
    pub async fn with(flags: &[&str]) -> Self {
        let mut fixture = Self::stopped(flags).await;
        fixture.start().await;
        fixture
    }

    /// Everything but the agent itself.
    pub async fn stopped(flags: &[&str]) -> Self {
        let engine = Engine::locate(None)
            .await
            .unwrap_or_else(|e| panic!("these tests need a Docker engine: {e}"));
        let image =
            IMAGE.get_or_try_init(|| async { ensure_demo_image(&engine, DEMO).await.map(drop) });
        image.await.expect("the demo image");
        let folder = tempfile::tempdir().unwrap();
        let s3 = EmbeddedS3::start(windlass_embedded_s3::Config {
            root: folder.path().join("s3"),
            addr: ([127, 0, 0, 1], 0).into(),
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            buckets: vec!["homes".to_owned()],
        })
        .await
        .unwrap();
        let prefix = format!("wlt{}-", &Uuid::new_v4().simple().to_string()[..10]);
        let state = folder.path().join("state").display().to_string();
        let endpoint = s3.endpoint();
        let mut args: Vec<String> = [
            ["--docker-host", engine.host()],
            ["--prefix", &prefix],
            ["--state-dir", &state],
            ["--service-token", TOKEN],
            ["--s3-endpoint", &endpoint],
            ["--s3-bucket", "homes"],
            ["--s3-prefix", "w/"],
            ["--s3-path-style", "true"],
            ["--s3-access-key-id", "key"],
            ["--s3-secret-access-key", "secret"],
            ["--drain-timeout", "2s"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        args.extend(flags.iter().map(|&f| f.to_owned()));
        Self {
            _cleanup: Cleanup {
                host: engine.host().to_owned(),
                prefix: prefix.clone(),
                images: std::sync::Mutex::default(),
            },
            prefix,
            engine,
            s3: Some(s3),
            folder,
            args,
            running: None,
            process: None,
        }
    }

    /// Starts the agent.
    pub async fn start(&mut self) {
        let name = "agent".to_owned();
        let config =
            Config::try_parse_from(std::iter::once(name).chain(self.args.clone())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(windlass_agent::run(config, listener, shutdown.clone()));
        let channel = connect(&address, &Secret::new(TOKEN)).unwrap();
        self.running = Some(Instance {
            client: Client::new(channel),
            shutdown,
            task,
        });
    }

    /// Stops the agent and starts it again.
    pub async fn restart(&mut self) {
        let old = self.running.take().unwrap();
        old.shutdown.cancel();
        old.task.await.unwrap().unwrap();
        self.start().await;
    }

    /// Replaces the value of a flag for the next start.
    pub fn set_flag(&mut self, flag: &str, value: &str) {
        let at = self.args.iter().position(|a| a == flag).unwrap();
        self.args[at + 1] = value.to_owned();
    }

    /// Starts the agent as a process of its own.
    pub fn start_process(&mut self, test: &str, crash_at: &str) {
        let process = AgentProcess::start(test, &self.args, crash_at);
        self.process = Some(process);
    }

    pub fn process(&self) -> &AgentProcess {
        self.process.as_ref().unwrap()
    }

    pub fn client(&self) -> Client {
        match &self.process {
            Some(process) => process.client.clone(),
            None => self.running.as_ref().unwrap().client.clone(),
        }
    }

    /// Runs `docker`.
    pub async fn docker(&self, args: &[&str]) -> String {
        self.engine.cli(args).await.unwrap()
    }

    /// The demo image with another command.
    pub async fn image_that_runs(&self, script: &str) -> String {
        let name = format!("{}image", self.prefix);
        let image = format!("{name}:{}", Uuid::new_v4().simple());
        self.docker(&["create", "--name", &name, DEMO]).await;
        let command = format!(
            "CMD {}",
            serde_json::to_string(&["/bin/sh", "-c", script]).unwrap()
        );
        self.docker(&["commit", "--change", &command, &name, &image])
            .await;
        self.docker(&["rm", &name]).await;
        self._cleanup.images.lock().unwrap().push(image.clone());
        image
    }

    pub fn container(&self, workspace: Uuid) -> String {
        format!("{}{workspace}", self.prefix)
    }

    pub fn volume(&self, workspace: Uuid) -> String {
        format!("{}{workspace}-home", self.prefix)
    }

    /// Where the home is on this machine.
    pub async fn home(&self, workspace: Uuid) -> PathBuf {
        let name = self.volume(workspace);
        let path = self
            .docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &name])
            .await;
        PathBuf::from(path)
    }

    /// Flips one byte in the middle of an object.
    pub async fn damage(&self, key: &str) {
        let store = Store::new(StoreConfig {
            endpoint: Some(self.s3.as_ref().unwrap().endpoint()),
            bucket: "homes".to_owned(),
            force_path_style: true,
            credentials: Some(("key".to_owned(), "secret".to_owned())),
            ..StoreConfig::default()
        })
        .await
        .unwrap();
        let mut bytes = store.get_small(key, 1 << 20).await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        store.put_small(key, bytes).await.unwrap();
    }

    /// Runs another agent on the same folder.
    pub async fn second_agent(&self) -> anyhow::Result<()> {
        let name = "agent".to_owned();
        let config = Config::try_parse_from(std::iter::once(name).chain(self.args.clone()))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        windlass_agent::run(config, listener, CancellationToken::new()).await
    }

    /// A path for a socket of the test's own.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    pub fn state_file(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(instance) = &self.running {
            instance.shutdown.cancel();
            instance.task.abort();
        }
    }
}
