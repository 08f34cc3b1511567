//! What fails half-way is finished by the same call, as a higher attempt.

use std::future::Future;
use std::io::Read;
use std::process::Command;

use tonic::{Code, Response, Status};
use uuid::Uuid;
use windlass_proto::v1::{self, ContainerState, JobState};

use crate::follow::Follower;
use crate::harness::{Fixture, attempt, context};

/// How a call is made until its job succeeded.
pub trait Caller {
    /// `call` is given the attempt. Returns how often it failed before.
    async fn call<T, F, Fut>(&self, f: &Fixture, workspace: Uuid, op: Uuid, call: F) -> u32
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>;
}

/// As wc does: what failed is a higher attempt.
struct Persistent;

impl Caller for Persistent {
    async fn call<T, F, Fut>(&self, f: &Fixture, workspace: Uuid, _: Uuid, mut call: F) -> u32
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        for n in 0..3 {
            match call(n).await {
                Ok(_) if f.ended(workspace).await.state() == JobState::Succeeded => return n,
                Ok(_) => {}
                Err(status) => assert!(status.message().contains("failpoint"), "{status:?}"),
            }
        }
        panic!("does not succeed: {:?}", f.job(workspace).await);
    }
}

/// A home made, optionally used, archived, removed and restored, whatever fails; returns how often something did.
pub async fn live(f: &Fixture, caller: &impl Caller, with_container: bool, bytes: u64) -> u32 {
    let (workspace, volume_id) = (Uuid::new_v4(), Uuid::new_v4());
    let mut failures = caller
        .call(f, workspace, volume_id, async |n| {
            let request = v1::ProvisionRequest {
                context: attempt(workspace, volume_id, n),
                replaces_volume_id: String::new(),
            };
            f.client().provision(request).await
        })
        .await;
    if with_container {
        let op = Uuid::new_v4();
        failures += caller
            .call(f, workspace, op, async |n| {
                let mut request = f.start_request(workspace, op, volume_id);
                request.context = attempt(workspace, op, n);
                f.client().start(request).await
            })
            .await;
        assert_eq!(f.containers().await[0].state(), ContainerState::Running);
        let op = Uuid::new_v4();
        failures += caller
            .call(f, workspace, op, async |n| {
                let request = v1::StopRequest {
                    context: attempt(workspace, op, n),
                    grace: None,
                };
                f.client().stop(request).await
            })
            .await;
        assert!(f.containers().await.is_empty());
    }
    let home = f.home(workspace).await;
    std::fs::write(home.join("kept"), "yes").unwrap();
    let mut noise = std::fs::File::open("/dev/urandom").unwrap().take(bytes);
    let mut file = std::fs::File::create(home.join("noise")).unwrap();
    std::io::copy(&mut noise, &mut file).unwrap();
    let op = Uuid::new_v4();
    failures += caller
        .call(f, workspace, op, async |n| {
            let request = v1::ArchiveRequest {
                context: attempt(workspace, op, n),
                volume_id: volume_id.to_string(),
                label: None,
                crash_consistent: false,
            };
            f.client().archive(request).await
        })
        .await;
    let listed = f.archives(true).await.unwrap().archives;
    let archive = listed
        .iter()
        .find(|a| a.archive_op_id == op.to_string())
        .unwrap();
    failures += caller
        .call(f, workspace, op, async |n| {
            let request = v1::DeleteVolumeRequest {
                context: attempt(workspace, op, n),
                volume_id: volume_id.to_string(),
                archive_key: archive.key.clone(),
                sha256: archive.sha256.clone(),
                discard_home: false,
            };
            f.client().delete_volume(request).await
        })
        .await;
    assert!(f.volumes().await.is_empty());
    let op = Uuid::new_v4();
    failures += caller
        .call(f, workspace, op, async |n| {
            let request = v1::RestoreRequest {
                context: attempt(workspace, op, n),
                archive_key: archive.key.clone(),
                replaces_volume_id: String::new(),
            };
            f.client().restore(request).await
        })
        .await;
    let kept = std::fs::read_to_string(f.home(workspace).await.join("kept")).unwrap();
    assert_eq!(kept, "yes");
    let volume_id = op;
    let op = Uuid::new_v4();
    failures += caller
        .call(f, workspace, op, async |n| {
            let discard = v1::DeleteVolumeRequest {
                context: attempt(workspace, op, n),
                volume_id: volume_id.to_string(),
                discard_home: true,
                ..v1::DeleteVolumeRequest::default()
            };
            f.client().delete_volume(discard).await
        })
        .await;
    assert!(f.volumes().await.is_empty());
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_with_the_engine_may_fail_once() {
    let f = Fixture::new().await;
    // Nothing is pulled here, and gc is not there.
    let passed = |name: &&&str| {
        **name != "agent::start-before-pull" && !name.starts_with("agent::archives-")
    };
    for name in windlass_agent::failpoints::ALL.iter().filter(passed) {
        fail::cfg(*name, "1*return(once)").unwrap();
        assert_eq!(live(&f, &Persistent, true, 0).await, 1, "{name}");
        fail::remove(name);
    }
}

/// One message larger than gRPC carries must not hide all jobs, and with them the host.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_many_words_hides_nothing() {
    let f = Fixture::new().await;
    let workspace = Uuid::new_v4();
    let many = format!("return({})", "x".repeat(8 << 20));
    fail::cfg("agent::volume-before-create", &many).unwrap();
    let request = v1::ProvisionRequest {
        context: context(workspace, Uuid::new_v4()),
        ..v1::ProvisionRequest::default()
    };
    let failed = f.client().provision(request).await.unwrap_err();
    fail::remove("agent::volume-before-create");
    assert_eq!(failed.code(), Code::Internal, "{}", failed.message().len());
    let job = f.job(workspace).await.expect("the job is listed");
    assert!(job.message.contains("xxx") && job.message.len() <= 2048);
    let mut follower = Follower::default();
    let id = workspace.to_string();
    follower
        .until(f.client(), "the job", |f| f.jobs.contains_key(&id))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_with_the_store_may_fail_once() {
    let f = Fixture::new().await;
    for name in windlass_archive::failpoints::ALL {
        fail::cfg(*name, "1*return(once)").unwrap();
        // A small home goes up in one request, without an upload in parts.
        let bytes = if name.starts_with("upload::") {
            40 << 20
        } else {
            0
        };
        assert_eq!(live(&f, &Persistent, false, bytes).await, 1, "{name}");
        fail::remove(name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_vanishes_while_its_container_is_made_is_noticed() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let (host, volume) = (f.engine.host().to_owned(), f.volume(workspace));
    fail::cfg_callback("agent::start-before-create", move || {
        let removed = Command::new("docker")
            .env("DOCKER_HOST", &host)
            .args(["volume", "rm", &volume])
            .status();
        assert!(removed.unwrap().success());
    })
    .unwrap();
    let request = f.start_request(workspace, Uuid::new_v4(), volume_id);
    f.client().start(request).await.unwrap();
    let job = f.ended(workspace).await;
    assert_eq!(job.state(), JobState::Failed);
    assert!(job.message.contains("vanished"), "{}", job.message);
    assert!(f.containers().await.is_empty());
    // The one that the engine made in silence is gone, too.
    assert!(f.volumes().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_written_after_the_archive_survives_the_last_moment() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let archive = f.archived(workspace, volume_id).await;
    let (host, name, volume) = (
        f.engine.host().to_owned(),
        f.container(workspace),
        f.volume(workspace),
    );
    // Somebody starts a container between the fingerprint and the removal.
    fail::cfg_callback("agent::delete-after-fingerprint", move || {
        let mount = format!("{volume}:/home/coder");
        let image = crate::harness::DEMO;
        let run = Command::new("docker")
            .env("DOCKER_HOST", &host)
            .args([
                "run",
                "-d",
                "--network=none",
                "--name",
                &name,
                "-v",
                &mount,
                image,
            ])
            .output();
        assert!(run.unwrap().status.success());
    })
    .unwrap();
    let request = v1::DeleteVolumeRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id: volume_id.to_string(),
        archive_key: archive.key.clone(),
        sha256: archive.sha256.clone(),
        discard_home: false,
    };
    let answer = f.client().delete_volume(request).await;
    crate::harness::refused(answer, Code::FailedPrecondition, "CONTAINER_RUNNING");
    assert_eq!(f.volumes().await.len(), 1);
}
