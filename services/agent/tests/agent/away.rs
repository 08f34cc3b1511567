//! Engine or store away: the agent starts, says so, and does what it can.

use std::time::{Duration, Instant};

use tonic::Code;
use uuid::Uuid;
use windlass_proto::v1::{self, JobState};

use crate::harness::{Fixture, context, refused};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_containers_go_on() {
    let mut f = Fixture::stopped(&["--archive-resync", "1s"]).await;
    let endpoint = f.s3.as_ref().unwrap().endpoint();
    f.set_flag("--s3-endpoint", "http://127.0.0.1:1");
    f.start().await;
    let (workspace, volume_id) = f.provisioned().await;
    f.started(workspace, volume_id).await;
    assert_eq!(f.containers().await.len(), 1);
    f.stopped_container(workspace).await;
    let stored = refused(
        f.archives(false).await,
        Code::Unavailable,
        "STORE_UNAVAILABLE",
    );
    assert_eq!(stored.as_deref(), Some("StoreUnavailable"));
    let host = f.host().await;
    assert!(
        !host.store_error.is_empty() && host.engine_error.is_empty(),
        "{host:?}"
    );

    let archive = v1::ArchiveRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id: volume_id.to_string(),
        label: None,
        crash_consistent: false,
    };
    let _ = f.client().archive(archive.clone()).await;
    let job = f.ended(workspace).await;
    assert_eq!(
        (job.state(), job.reason.as_str()),
        (JobState::Failed, "StoreUnavailable")
    );
    assert_eq!(f.volumes().await.len(), 1);

    // Back again.
    f.set_flag("--s3-endpoint", &endpoint);
    f.restart().await;
    f.client().archive(archive).await.unwrap();
    f.succeeded(workspace).await;
    assert_eq!(f.archives(true).await.unwrap().archives.len(), 1);

    // A list that cannot be refreshed is told for a while, then no longer.
    f.s3.take().unwrap().shutdown().await;
    let begun = Instant::now();
    while f.archives(false).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(60), "told for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    refused(
        f.archives(false).await,
        Code::Unavailable,
        "STORE_UNAVAILABLE",
    );
    assert!(f.containers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_engine_the_agent_says_so() {
    let mut f = Fixture::stopped(&[]).await;
    f.set_flag("--docker-host", "unix:///does/not/exist.sock");
    f.start().await;
    let answer = f.client().list_all(v1::ListAllRequest::default()).await;
    let stored = refused(answer.map(drop), Code::Unavailable, "ENGINE_UNAVAILABLE");
    assert_eq!(stored.as_deref(), Some("Unreachable"));
    let request = v1::StopRequest {
        context: context(Uuid::new_v4(), Uuid::new_v4()),
        grace: None,
    };
    let answer = f.client().stop(request).await;
    refused(answer, Code::Unavailable, "ENGINE_UNAVAILABLE");
    let host = f.host().await;
    assert!(host.engine_error.contains("exist.sock"), "{host:?}");
    // The store goes on.
    f.archives(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_do_not_share_a_folder() {
    let f = Fixture::new().await;
    f.archives(true).await.unwrap();
    let error = f.second_agent().await.unwrap_err().to_string();
    assert!(error.contains("WINDLASS_AGENT_STATE_DIR"), "{error}");
}
