//! The agent is killed (`kill -9`) at every failpoint of its own, and the next process goes on with the same
//! calls: homes, containers, archives and volumes end as if nothing had happened.

use std::env;
use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Signal, getpid, getppid, kill_process};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};
use uuid::Uuid;
use windlass_local::ports::free_port;
use windlass_proto::v1::{self, JobState};
use windlass_service::{Secret, connect};

use crate::faults::{Caller, live};
use crate::harness::{Client, Fixture, TOKEN, context};

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// An agent in a process of its own, which kills itself once.
pub struct AgentProcess {
    pub client: Client,
    test: String,
    args: String,
    address: String,
    child: Mutex<Child>,
    killed: AtomicBool,
}

impl AgentProcess {
    /// The child is this test binary, told to run `test`, which has to begin with [`as_agent`].
    pub fn start(test: &str, args: &[String], crash_at: &str) -> Self {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let args = serde_json::to_string(args).unwrap();
        Self {
            client: Client::new(connect(&address, &Secret::new(TOKEN)).unwrap()),
            child: Mutex::new(spawn(test, &args, &address, crash_at)),
            killed: AtomicBool::new(false),
            test: test.to_owned(),
            args,
            address,
        }
    }

    /// Starts the next process if the first one is dead.
    fn revive(&self) {
        let mut child = self.child.lock().unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.signal(), Some(9), "{status}");
            assert!(!self.killed.swap(true, Ordering::SeqCst), "killed twice");
            *child = spawn(&self.test, &self.args, &self.address, "");
        }
    }

    /// Whether it was killed. Waits a moment for a kill that comes after the last answer.
    async fn was_killed(&self) -> bool {
        for _ in 0..50 {
            self.revive();
            if self.killed.load(Ordering::SeqCst) {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        false
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn spawn(test: &str, args: &str, address: &str, crash_at: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact"])
        .env("AGENT_ARGS", args)
        .env("AGENT_ADDRESS", address)
        .env("CRASH_AT", crash_at)
        .spawn()
        .unwrap()
}

/// In the child: the agent of the environment, until it is killed.
async fn as_agent() {
    let Ok(args) = env::var("AGENT_ARGS") else {
        return;
    };
    let crash_at = env::var("CRASH_AT").unwrap();
    if !crash_at.is_empty() {
        fail::cfg_callback(crash_at, || {
            kill_process(getpid(), Signal::KILL).unwrap();
        })
        .unwrap();
    }
    let parent = getppid();
    tokio::spawn(async move {
        while getppid() == parent {
            tokio::time::sleep(PAUSE).await;
        }
        std::process::exit(1);
    });
    let args: Vec<String> = serde_json::from_str(&args).unwrap();
    let args = std::iter::once("agent".to_owned()).chain(args);
    let config = windlass_agent::Config::try_parse_from(args).unwrap();
    let address = env::var("AGENT_ADDRESS").unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    windlass_agent::run(config, listener, CancellationToken::new())
        .await
        .unwrap();
}

/// Asks until the job succeeded, the same attempt again and again: nobody saw it fail.
struct Unmoved;

impl Caller for Unmoved {
    async fn call<T, F, Fut>(&self, f: &Fixture, workspace: Uuid, op: Uuid, mut call: F) -> u32
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let begun = Instant::now();
        loop {
            let answer = call(0).await.map(drop);
            match &answer {
                Ok(()) if succeeded(f, workspace, op, begun).await => return 0,
                Ok(()) => {}
                Err(status)
                    if matches!(
                        status.code(),
                        Code::Unavailable | Code::Unknown | Code::Cancelled
                    ) => {}
                Err(status) => panic!("{status:?}"),
            }
            assert!(begun.elapsed() < PATIENCE, "does not succeed: {answer:?}");
            f.process().revive();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether the job has succeeded, or else its agent was killed. To ask for one that has is to do it anew, so it is
/// waited for.
async fn succeeded(f: &Fixture, workspace: Uuid, op: Uuid, begun: Instant) -> bool {
    loop {
        let request = v1::ListJobsRequest {
            workspace_id: workspace.to_string(),
        };
        let Ok(jobs) = f.client().list_jobs(request).await else {
            return false;
        };
        let jobs = jobs.into_inner().jobs;
        let Some(job) = jobs.iter().find(|job| job.op_id == op.to_string()) else {
            return false;
        };
        match job.state() {
            JobState::Succeeded => return true,
            JobState::Failed => panic!("{job:?}"),
            _ => assert!(begun.elapsed() < PATIENCE, "does not end: {job:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_anywhere_ends_as_one_that_was_not() {
    as_agent().await;
    const TEST: &str = "crashes::an_agent_killed_anywhere_ends_as_one_that_was_not";
    // Nothing is pulled here; gc has a test of its own.
    let passed = |name: &&&str| {
        **name != "agent::start-before-pull" && !name.starts_with("agent::archives-")
    };
    for name in windlass_agent::failpoints::ALL.iter().filter(passed) {
        let mut f = Fixture::stopped(&[]).await;
        println!("killed at {name}");
        f.start_process(TEST, name);
        let with_container = name.starts_with("agent::start-") || name.starts_with("agent::stop-");
        live(&f, &Unmoved, with_container, 0).await;
        assert!(f.process().was_killed().await, "{name} was not reached");
    }
}

/// What the store holds, once the next process tells.
async fn seen_again(f: &Fixture) -> v1::ListArchivesResponse {
    let begun = Instant::now();
    loop {
        f.process().revive();
        if let Ok(seen) = f.archives(true).await {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "the agent does not come back");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_killed_anywhere_leaves_no_marker_without_data() {
    as_agent().await;
    const TEST: &str = "crashes::a_collection_killed_anywhere_leaves_no_marker_without_data";
    let of_gc = |name: &&&str| name.starts_with("agent::archives-");
    for name in windlass_agent::failpoints::ALL.iter().filter(of_gc) {
        let mut f = Fixture::stopped(&[]).await;
        f.start_process(TEST, name);
        let (workspace, op) = (Uuid::new_v4(), Uuid::new_v4());
        Unmoved
            .call(&f, workspace, op, async |_| {
                let request = v1::CreateEmptyArchiveRequest {
                    context: context(workspace, op),
                    label: None,
                };
                f.client().create_empty_archive(request).await
            })
            .await;
        let archive = f.archives(true).await.unwrap().archives.remove(0);
        let request = v1::DeleteArchivesRequest {
            epoch: 1,
            keys: vec![archive.key.clone(), format!("{}.meta", archive.key)],
            abort_uploads_older_than: None,
        };
        assert!(f.client().delete_archives(request.clone()).await.is_err());
        let left = seen_again(&f).await;
        // Whole, or not an archive any more: its data may be left, never its marker alone.
        let complete = !left.archives.is_empty();
        assert_eq!(complete, *name == "agent::archives-before-markers");
        assert!(left.loose.iter().all(|object| object.key == archive.key));
        f.client().delete_archives(request).await.unwrap();
        assert!(f.process().was_killed().await, "{name} was not reached");
        let left = f.archives(true).await.unwrap();
        assert!(
            left.archives.is_empty() && left.loose.is_empty(),
            "{left:?}"
        );
    }
}
