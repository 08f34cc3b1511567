//! An agent of its own for each test, with its own prefix and store, cleaned up whatever happens.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;
use windlass_agent::Config;
use windlass_archive::{Store, StoreConfig};
use windlass_embedded_s3::{EmbeddedS3, Running};
use windlass_local::docker::Engine;
use windlass_local::image::ensure_demo_image;
use windlass_proto::v1::agent_service_client::AgentServiceClient;
use windlass_proto::v1::{self, JobState};
use windlass_service::{AuthChannel, Secret, connect};

pub const DEMO: &str = "windlass/demo:agent-tests";
pub const TOKEN: &str = "agent-tests";
const PATIENCE: Duration = Duration::from_secs(60);

static IMAGE: OnceCell<()> = OnceCell::const_new();

pub type Client = AgentServiceClient<AuthChannel>;

use crate::crashes::AgentProcess;

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

    pub async fn containers(&self) -> Vec<v1::Container> {
        let request = v1::ListAllRequest::default();
        let mut stream = self.client().list_all(request).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            all.extend(chunk.containers);
        }
        all
    }

    pub async fn volumes(&self) -> Vec<v1::Volume> {
        let request = v1::ListVolumesRequest::default();
        let mut stream = self
            .client()
            .list_volumes(request)
            .await
            .unwrap()
            .into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            all.extend(chunk.volumes);
        }
        all
    }

    pub async fn archives(&self, refresh: bool) -> Result<v1::ListArchivesResponse, Status> {
        let request = v1::ListArchivesRequest {
            refresh,
            include_loose: true,
            ..v1::ListArchivesRequest::default()
        };
        let mut stream = self.client().list_archives(request).await?.into_inner();
        let mut all = v1::ListArchivesResponse::default();
        while let Some(chunk) = stream.message().await? {
            all.archives.extend(chunk.archives);
            all.restores.extend(chunk.restores);
            all.loose.extend(chunk.loose);
            all.list_time = chunk.list_time;
        }
        Ok(all)
    }

    pub async fn job(&self, workspace: Uuid) -> Option<v1::Job> {
        let request = v1::ListJobsRequest {
            workspace_id: workspace.to_string(),
        };
        let jobs = self.client().list_jobs(request).await.unwrap();
        jobs.into_inner().jobs.into_iter().next()
    }

    /// Waits until the workspace's job ended.
    pub async fn ended(&self, workspace: Uuid) -> v1::Job {
        let begun = Instant::now();
        loop {
            if let Some(job) = self.job(workspace).await
                && matches!(job.state(), JobState::Succeeded | JobState::Failed)
            {
                return job;
            }
            assert!(begun.elapsed() < PATIENCE, "the job does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it succeeded.
    pub async fn succeeded(&self, workspace: Uuid) -> v1::Job {
        let job = self.ended(workspace).await;
        assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
        job
    }

    /// A new home; returns the workspace and the volume_id.
    pub async fn provisioned(&self) -> (Uuid, Uuid) {
        let (workspace, op) = (Uuid::new_v4(), Uuid::new_v4());
        let request = v1::ProvisionRequest {
            context: context(workspace, op),
            ..v1::ProvisionRequest::default()
        };
        let job = self
            .client()
            .provision(request)
            .await
            .unwrap()
            .into_inner()
            .job
            .unwrap();
        assert_eq!(job.state(), JobState::Succeeded);
        (workspace, op)
    }

    /// Archives and returns what the index tells of it.
    pub async fn archived(&self, workspace: Uuid, volume_id: Uuid) -> v1::ArchiveInfo {
        let op = Uuid::new_v4();
        let request = v1::ArchiveRequest {
            context: context(workspace, op),
            volume_id: volume_id.to_string(),
            label: Some(v1::WorkspaceLabel {
                name: "demo".to_owned(),
                owner: "ada".to_owned(),
                image: DEMO.to_owned(),
            }),
            crash_consistent: false,
        };
        self.client().archive(request).await.unwrap();
        self.succeeded(workspace).await;
        // The first list of the store may still be under way.
        let begun = Instant::now();
        loop {
            if let Ok(all) = self.archives(false).await
                && let Some(found) = all
                    .archives
                    .into_iter()
                    .find(|a| a.archive_op_id == op.to_string())
            {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "the archive is not listed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn start_request(&self, workspace: Uuid, op: Uuid, volume_id: Uuid) -> v1::StartRequest {
        v1::StartRequest {
            context: context(workspace, op),
            image: DEMO.to_owned(),
            volume_id: volume_id.to_string(),
            limits: None,
        }
    }

    pub async fn started(&self, workspace: Uuid, volume_id: Uuid) -> Uuid {
        let op = Uuid::new_v4();
        let request = self.start_request(workspace, op, volume_id);
        self.client().start(request).await.unwrap();
        self.succeeded(workspace).await;
        op
    }

    pub async fn stopped_container(&self, workspace: Uuid) {
        let request = v1::StopRequest {
            context: context(workspace, Uuid::new_v4()),
            grace: None,
        };
        self.client().stop(request).await.unwrap();
        self.succeeded(workspace).await;
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

/// Attempt 0 at epoch 1.
pub fn context(workspace: Uuid, op: Uuid) -> Option<v1::WorkContext> {
    attempt(workspace, op, 0)
}

pub fn attempt(workspace: Uuid, op: Uuid, attempt: u32) -> Option<v1::WorkContext> {
    Some(v1::WorkContext {
        workspace_id: workspace.to_string(),
        op_id: op.to_string(),
        attempt,
        epoch: 1,
        ..v1::WorkContext::default()
    })
}

/// That a call was refused with this code and reason; returns the error_reason that wc stores.
pub fn refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
) -> Option<String> {
    let status = result.expect_err(reason);
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(
        windlass_service::reason_of(&status).as_deref(),
        Some(reason),
        "{status:?}"
    );
    windlass_service::error::metadata_of(&status, "error_reason")
}
