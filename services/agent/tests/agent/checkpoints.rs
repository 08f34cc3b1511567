//! Checkpoints: a home is archived while its container writes to it, and nothing ever goes on the word of one.

use std::path::Path;
use std::time::{Duration, Instant};

use tonic::Code;
use uuid::Uuid;
use windlass_proto::v1::{self, JobState};

use crate::harness::{Fixture, context, refused};
use crate::wire::ToStore;

fn checkpoint(workspace: Uuid, op: Uuid, volume_id: Uuid) -> v1::ArchiveRequest {
    v1::ArchiveRequest {
        context: context(workspace, op),
        volume_id: volume_id.to_string(),
        label: None,
        crash_consistent: true,
    }
}

async fn listed(f: &Fixture, op: Uuid) -> v1::ArchiveInfo {
    let all = f.archives(true).await.unwrap().archives;
    let of_op = |a: &v1::ArchiveInfo| a.archive_op_id == op.to_string();
    all.into_iter().find(of_op).expect("the archive is listed")
}

fn fill(home: &Path) {
    std::fs::create_dir(home.join("still")).unwrap();
    for n in 0..50_usize {
        let content = format!("{n}").repeat(n * 100);
        std::fs::write(home.join(format!("still/{n}")), content).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_is_archived_while_its_container_writes() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let home = f.home(workspace).await;
    fill(&home);
    let busy = "while :; do date > /home/coder/busy; echo x >> /home/coder/log; rm -f /home/coder/gone; \
                touch /home/coder/gone; done";
    let image = f.image_that_runs(busy).await;
    let request = v1::StartRequest {
        image,
        ..f.start_request(workspace, Uuid::new_v4(), volume_id)
    };
    f.client().start(request).await.unwrap();
    f.succeeded(workspace).await;

    let mut ops = Vec::new();
    for _ in 0..3 {
        let op = Uuid::new_v4();
        let request = checkpoint(workspace, op, volume_id);
        f.client().archive(request).await.unwrap();
        let job = f.succeeded(workspace).await;
        assert_eq!(job.operation(), v1::Operation::Checkpointing);
        ops.push(op);
    }
    let container = &f.containers().await[0];
    assert_eq!(container.state(), v1::ContainerState::Running);
    let archive = listed(&f, ops[2]).await;
    assert!(archive.crash_consistent, "{archive:?}");
    assert_eq!(archive.volume_id, volume_id.to_string());

    // It comes back as any other does.
    f.stopped_container(workspace).await;
    let request = v1::RestoreRequest {
        context: context(workspace, Uuid::new_v4()),
        archive_key: archive.key.clone(),
        replaces_volume_id: volume_id.to_string(),
    };
    f.client().restore(request).await.unwrap();
    f.succeeded(workspace).await;
    let restored = f.home(workspace).await;
    for n in 0..50_usize {
        let kept = std::fs::read_to_string(restored.join(format!("still/{n}"))).unwrap();
        assert_eq!(kept, format!("{n}").repeat(n * 100), "still/{n}");
    }
    assert!(restored.join("log").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_volume_goes_on_the_word_of_a_checkpoint() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    fill(&f.home(workspace).await);
    // At rest before and after: nothing but its kind speaks against it.
    let op = Uuid::new_v4();
    let request = checkpoint(workspace, op, volume_id);
    f.client().archive(request).await.unwrap();
    f.succeeded(workspace).await;
    let archive = listed(&f, op).await;
    assert_eq!((archive.crash_consistent, archive.changed_files), (true, 0));
    let delete = |archive: &v1::ArchiveInfo| v1::DeleteVolumeRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id: volume_id.to_string(),
        archive_key: archive.key.clone(),
        sha256: archive.sha256.clone(),
        discard_home: false,
    };
    let answer = f.client().delete_volume(delete(&archive)).await;
    let stored = refused(answer, Code::FailedPrecondition, "VOLUME_CHANGED");
    assert_eq!(stored.as_deref(), Some("VolumeChanged"), "archived anew");
    assert_eq!(f.volumes().await.len(), 1);

    // Nor is it taken for the archive that the same operation would make at rest.
    let request = v1::ArchiveRequest {
        crash_consistent: false,
        ..checkpoint(workspace, op, volume_id)
    };
    f.client().archive(request).await.unwrap();
    assert_eq!(f.ended(workspace).await.state(), JobState::Failed);

    let clean = f.archived(workspace, volume_id).await;
    assert!(!clean.crash_consistent);
    f.client().delete_volume(delete(&clean)).await.unwrap();
    assert!(f.volumes().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_gives_way_while_the_store_hangs() {
    let mut f = Fixture::stopped(&[]).await;
    let wire = ToStore::new(&f.s3.as_ref().unwrap().endpoint()).await;
    f.set_flag("--s3-endpoint", &wire.endpoint());
    f.start().await;
    let (workspace, volume_id) = f.provisioned().await;
    wire.hang();
    let request = checkpoint(workspace, Uuid::new_v4(), volume_id);
    f.client().archive(request).await.unwrap();
    let begun = Instant::now();
    while f.job(workspace).await.map(|j| j.state()) != Some(JobState::Running) {
        assert!(begun.elapsed() < Duration::from_secs(60), "never runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    f.stopped_instead(workspace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_volume_is_no_home_to_take_a_checkpoint_of() {
    let f = Fixture::new().await;
    let (workspace, _) = f.provisioned().await;
    let request = checkpoint(workspace, Uuid::new_v4(), Uuid::new_v4());
    let answer = f.client().archive(request).await;
    refused(answer, Code::FailedPrecondition, "VOLUME_CHANGED");
    let request = checkpoint(Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let answer = f.client().archive(request).await;
    refused(answer, Code::FailedPrecondition, "VOLUME_NOT_FOUND");
}
