use std::time::Duration;

use tonic::Code;
use uuid::Uuid;
use windlass_proto::v1::{self, ContainerState, JobState};

use crate::harness::{Fixture, attempt, context, refused};
use crate::wire::ToEngine;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_on_another_home() {
    let f = Fixture::new().await;
    let workspace = Uuid::new_v4();
    let missing = f.start_request(workspace, Uuid::new_v4(), Uuid::new_v4());
    let answer = f.client().start(missing).await;
    refused(answer, Code::FailedPrecondition, "VOLUME_NOT_FOUND");
    assert!(
        f.volumes().await.is_empty(),
        "the engine made a volume in silence"
    );

    let (workspace, _) = f.provisioned().await;
    let other = f.start_request(workspace, Uuid::new_v4(), Uuid::new_v4());
    let answer = f.client().start(other).await;
    let stored = refused(answer, Code::FailedPrecondition, "VOLUME_CHANGED");
    assert_eq!(stored.as_deref(), Some("ActionFailed"));
    assert!(f.containers().await.is_empty());
    assert!(f.job(workspace).await.unwrap().state() == JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_is_told() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    for (n, image) in ["127.0.0.1:1/no/such:image", "Not An Image"]
        .into_iter()
        .enumerate()
    {
        let mut request = f.start_request(workspace, Uuid::new_v4(), volume_id);
        request.image = image.to_owned();
        let _ = f.client().start(request.clone()).await;
        let job = f.ended(workspace).await;
        assert_eq!(job.reason, "ImagePullFailed", "{n}: {job:?}");
        assert!(job.message.contains(image), "{job:?}");
        let again = f.client().start(request.clone()).await;
        let stored = refused(again, Code::FailedPrecondition, "IMAGE_PULL_FAILED");
        assert_eq!(stored.as_deref(), Some("ImagePullFailed"));

        // A higher attempt runs again.
        let op: Uuid = request.context.unwrap().op_id.parse().unwrap();
        let mut next = f.start_request(workspace, op, volume_id);
        next.context = attempt(workspace, op, 1);
        f.client().start(next).await.unwrap();
        f.succeeded(workspace).await;
        assert_eq!(f.containers().await[0].attempt, 1);
        f.stopped_container(workspace).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_holds_nobody_up() {
    let mut f = Fixture::stopped(&["--max-start-jobs", "1"]).await;
    let wire = ToEngine::new(&f.socket(), f.engine.host());
    wire.hang_pulls();
    f.set_flag("--docker-host", &wire.host());
    f.start().await;
    let (slow, home) = f.provisioned().await;
    let mut request = f.start_request(slow, Uuid::new_v4(), home);
    request.image = "127.0.0.1:1/no/such:image".to_owned();
    f.client().start(request).await.unwrap();
    let begun = std::time::Instant::now();
    while f.job(slow).await.and_then(|j| j.progress).is_none() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never pulls");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (other, home) = f.provisioned().await;
    f.started(other, home).await;

    // Nor the workspace itself.
    f.stopped_instead(slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_exits_is_a_crash() {
    let f = Fixture::new().await;
    let image = f.image_that_runs("exit 3").await;
    let (workspace, volume_id) = f.provisioned().await;
    let op = Uuid::new_v4();
    let mut request = f.start_request(workspace, op, volume_id);
    request.image = image;
    // However late the engine is to notice, the first look at it is later.
    let (host, name) = (f.engine.host().to_owned(), f.container(workspace));
    fail::cfg_callback("agent::start-after-start", move || {
        let wait = ["-H", &host, "wait", &name];
        let waited = std::process::Command::new("docker").args(wait).output();
        assert!(waited.unwrap().status.success());
    })
    .unwrap();
    let _ = f.client().start(request.clone()).await;
    let job = f.ended(workspace).await;
    fail::remove("agent::start-after-start");
    assert_eq!(
        (job.state(), job.reason.as_str()),
        (JobState::Failed, "CrashLoop")
    );
    assert!(job.message.contains("code 3"), "{}", job.message);
    let container = &f.containers().await[0];
    assert_eq!(
        (container.state(), container.exit_code),
        (ContainerState::Exited, 3)
    );
    assert!(container.finish_time.is_some());
    refused(
        f.client().start(request.clone()).await,
        Code::FailedPrecondition,
        "CRASH_LOOP",
    );
    let first = container.container_id.clone();

    // The next attempt replaces the container.
    request.context = attempt(workspace, op, 1);
    let _ = f.client().start(request.clone()).await;
    assert_eq!(f.ended(workspace).await.attempt, 1);
    let container = &f.containers().await[0];
    assert_ne!(container.container_id, first);
    assert_eq!(container.attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_known_after_a_restart_too() {
    let mut f = Fixture::new().await;
    let image = f.image_that_runs("exit 4").await;
    let (workspace, volume_id) = f.provisioned().await;
    let mut request = f.start_request(workspace, Uuid::new_v4(), volume_id);
    request.image = image;
    let _ = f.client().start(request.clone()).await;
    f.ended(workspace).await;
    let first = f.containers().await[0].container_id.clone();
    f.restart().await;
    assert!(f.job(workspace).await.is_none());
    let _ = f.client().start(request).await;
    let job = f.ended(workspace).await;
    assert_eq!(job.reason, "CrashLoop");
    assert_eq!(f.containers().await[0].container_id, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_leaves_no_container() {
    let f = Fixture::new().await;
    let image = f.image_that_runs("true").await;
    let name = format!("{}broken", f.prefix);
    f.docker(&["create", "--name", &name, &image]).await;
    f.docker(&[
        "commit",
        "--change",
        r#"ENTRYPOINT ["/no/such/thing"]"#,
        &name,
        &image,
    ])
    .await;
    f.docker(&["rm", &name]).await;
    let (workspace, volume_id) = f.provisioned().await;
    let mut request = f.start_request(workspace, Uuid::new_v4(), volume_id);
    request.image = image;
    let _ = f.client().start(request).await;
    let job = f.ended(workspace).await;
    assert_eq!(job.state(), JobState::Failed, "{job:?}");
    assert!(
        job.reason == "ActionFailed" || job.reason == "CrashLoop",
        "{job:?}"
    );
    assert!(f.volumes().await.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_at_a_time_and_sigkill_after_the_grace() {
    let f = Fixture::new().await;
    let image = f
        .image_that_runs("trap '' TERM; while :; do sleep 1; done")
        .await;
    let (workspace, volume_id) = f.provisioned().await;
    let mut request = f.start_request(workspace, Uuid::new_v4(), volume_id);
    request.image = image;
    f.client().start(request).await.unwrap();
    f.succeeded(workspace).await;
    let stop = v1::StopRequest {
        context: context(workspace, Uuid::new_v4()),
        grace: Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        }),
    };
    let begun = std::time::Instant::now();
    f.client().stop(stop.clone()).await.unwrap();
    f.client().stop(stop).await.unwrap();
    let archive = v1::ArchiveRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id: volume_id.to_string(),
        label: None,
        crash_consistent: false,
    };
    let stored = refused(f.client().archive(archive).await, Code::Aborted, "BUSY");
    assert_eq!(stored, None);
    // Another workspace does not wait.
    f.provisioned().await;
    let stopping = f.job(workspace).await.unwrap();
    assert_eq!(stopping.state(), JobState::Running, "waited for the stop");
    f.succeeded(workspace).await;
    assert!(begun.elapsed() >= Duration::from_secs(10));
    assert!(f.containers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_memory_is_told() {
    let f = Fixture::new().await;
    // A child is killed, and the container ends after the engine was told of that.
    let script = "until [ -e /home/coder/go ]; do sleep 0.1; done
        (x=a; while :; do x=$x$x; done)
        sleep 2; exit 137";
    let image = f.image_that_runs(script).await;
    let (workspace, volume_id) = f.provisioned().await;
    let mut request = f.start_request(workspace, Uuid::new_v4(), volume_id);
    request.image = image;
    request.limits = Some(v1::Limits {
        memory_bytes: 16 << 20,
        ..v1::Limits::default()
    });
    f.client().start(request).await.unwrap();
    f.succeeded(workspace).await;
    f.docker(&["exec", &f.container(workspace), "touch", "/home/coder/go"])
        .await;
    let begun = std::time::Instant::now();
    loop {
        let container = &f.containers().await[0];
        if container.state() == ContainerState::Exited {
            assert!(container.oom_killed, "{container:?}");
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never killed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
