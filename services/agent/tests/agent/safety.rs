use tonic::Code;
use uuid::Uuid;
use windlass_proto::v1::{self, JobState};

use crate::harness::{DEMO, Fixture, context, refused};

fn delete(workspace: Uuid, volume_id: Uuid, archive: &v1::ArchiveInfo) -> v1::DeleteVolumeRequest {
    v1::DeleteVolumeRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id: volume_id.to_string(),
        archive_key: archive.key.clone(),
        sha256: archive.sha256.clone(),
        discard_home: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_changed_or_is_used_or_not_archived_stays() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let home = f.home(workspace).await;
    std::fs::write(home.join("a"), "1").unwrap();
    let archive = f.archived(workspace, volume_id).await;
    let good = delete(workspace, volume_id, &archive);

    let request = v1::DeleteVolumeRequest {
        sha256: "0".repeat(64),
        ..good.clone()
    };
    let answer = f.client().delete_volume(request).await;
    let stored = refused(answer, Code::FailedPrecondition, "DIGEST_MISMATCH");
    assert_eq!(stored.as_deref(), Some("ArchiveCorrupted"));

    let request = v1::DeleteVolumeRequest {
        archive_key: format!("w/{workspace}/{}/home.tar.zst", Uuid::new_v4()),
        ..delete(workspace, volume_id, &archive)
    };
    let answer = f.client().delete_volume(request).await;
    refused(answer, Code::FailedPrecondition, "ARCHIVE_NOT_FOUND");

    let request = delete(workspace, Uuid::new_v4(), &archive);
    let answer = f.client().delete_volume(request).await;
    let stored = refused(answer, Code::FailedPrecondition, "VOLUME_CHANGED");
    assert_eq!(stored.as_deref(), Some("ActionFailed"));

    // A container that was only created counts.
    let (name, volume) = (f.container(workspace), f.volume(workspace));
    let mount = format!("{volume}:/home/coder:nocopy");
    f.docker(&["create", "--name", &name, "-v", &mount, DEMO])
        .await;
    let answer = f
        .client()
        .delete_volume(delete(workspace, volume_id, &archive))
        .await;
    refused(answer, Code::FailedPrecondition, "CONTAINER_RUNNING");
    f.docker(&["rm", &name]).await;

    // One byte, the same size, a moment later.
    std::fs::write(home.join("a"), "2").unwrap();
    let answer = f
        .client()
        .delete_volume(delete(workspace, volume_id, &archive))
        .await;
    let stored = refused(answer, Code::FailedPrecondition, "VOLUME_CHANGED");
    assert_eq!(stored.as_deref(), Some("VolumeChanged"));
    assert_eq!(f.volumes().await.len(), 1);

    // Archived anew it may go.
    let archive = f.archived(workspace, volume_id).await;
    let answer = f
        .client()
        .delete_volume(delete(workspace, volume_id, &archive))
        .await;
    assert_eq!(
        answer.unwrap().into_inner().job.unwrap().state(),
        JobState::Succeeded
    );
    assert!(f.volumes().await.is_empty());
}

/// Such as one that was lost and is back after an older archive was accepted for it.
#[tokio::test(flavor = "multi_thread")]
async fn no_volume_goes_on_the_word_of_an_archive_of_another_volume() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    std::fs::write(f.home(workspace).await.join("a"), "1").unwrap();
    let archive = f.archived(workspace, volume_id).await;
    let next = Uuid::new_v4();
    let request = v1::RestoreRequest {
        context: context(workspace, next),
        archive_key: archive.key.clone(),
        replaces_volume_id: volume_id.to_string(),
    };
    f.client().restore(request).await.unwrap();
    f.succeeded(workspace).await;

    let request = delete(workspace, next, &archive);
    let answer = f.client().delete_volume(request).await;
    let stored = refused(answer, Code::FailedPrecondition, "VOLUME_CHANGED");
    assert_eq!(stored.as_deref(), Some("VolumeChanged"), "archived anew");
    assert_eq!(f.volumes().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_given_up_goes_and_another_does_not() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    std::fs::write(f.home(workspace).await.join("a"), "1").unwrap();
    let discard = |volume_id: String| v1::DeleteVolumeRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id,
        discard_home: true,
        ..v1::DeleteVolumeRequest::default()
    };
    let other = f
        .client()
        .delete_volume(discard(Uuid::new_v4().to_string()))
        .await;
    refused(other, Code::FailedPrecondition, "VOLUME_CHANGED");
    assert_eq!(f.volumes().await.len(), 1);
    f.client()
        .delete_volume(discard(volume_id.to_string()))
        .await
        .unwrap();
    assert!(f.volumes().await.is_empty());
    f.client()
        .delete_volume(discard(String::new()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_volume_that_is_named_makes_room() {
    let f = Fixture::new().await;
    let (workspace, first) = f.provisioned().await;
    let home = f.home(workspace).await;
    std::fs::write(home.join("a"), "1").unwrap();
    let archive = f.archived(workspace, first).await;
    let restore = |replaces: String| v1::RestoreRequest {
        context: context(workspace, Uuid::new_v4()),
        archive_key: archive.key.clone(),
        replaces_volume_id: replaces,
    };
    let provision = |replaces: String| v1::ProvisionRequest {
        context: context(workspace, Uuid::new_v4()),
        replaces_volume_id: replaces,
    };
    for replaces in [String::new(), Uuid::new_v4().to_string()] {
        let answer = f.client().restore(restore(replaces.clone())).await;
        refused(answer, Code::FailedPrecondition, "VOLUME_EXISTS");
        let answer = f.client().provision(provision(replaces)).await;
        refused(answer, Code::FailedPrecondition, "VOLUME_EXISTS");
    }
    assert!(home.join("a").exists());

    // Nor while a container uses it.
    f.started(workspace, first).await;
    let answer = f.client().restore(restore(first.to_string())).await;
    refused(answer, Code::FailedPrecondition, "CONTAINER_RUNNING");
    let archive_running = v1::ArchiveRequest {
        context: context(workspace, Uuid::new_v4()),
        volume_id: first.to_string(),
        label: None,
        crash_consistent: false,
    };
    let answer = f.client().archive(archive_running).await;
    refused(answer, Code::FailedPrecondition, "CONTAINER_RUNNING");
    f.stopped_container(workspace).await;

    let request = restore(first.to_string());
    let op = request.context.clone().unwrap().op_id;
    f.client().restore(request).await.unwrap();
    f.succeeded(workspace).await;
    assert_eq!(f.volumes().await[0].volume_id, op);
    let restored = f.home(workspace).await.join("a");
    assert_eq!(std::fs::read_to_string(restored).unwrap(), "1");
}

/// The home is lost right after its restore, and the same restore fails when it is done again.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_done_again_counts_once_it_is_complete() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let home = f.home(workspace).await;
    std::fs::write(home.join("a"), vec![7_u8; 100_000]).unwrap();
    let archive = f.archived(workspace, volume_id).await;
    let request = v1::RestoreRequest {
        context: context(workspace, Uuid::new_v4()),
        archive_key: archive.key.clone(),
        replaces_volume_id: volume_id.to_string(),
    };
    f.client().restore(request.clone()).await.unwrap();
    f.succeeded(workspace).await;
    assert_eq!(f.archives(false).await.unwrap().restores.len(), 1);
    f.docker(&["volume", "rm", &f.volume(workspace)]).await;
    f.damage(&archive.key).await;
    let _ = f.client().restore(request).await;
    let job = f.ended(workspace).await;
    assert_eq!(job.reason, "ArchiveCorrupted", "{job:?}");
    for refresh in [false, true] {
        let all = f.archives(refresh).await.unwrap();
        assert!(all.restores.is_empty(), "refresh: {refresh}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_told_and_leaves_no_home() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let home = f.home(workspace).await;
    std::fs::write(home.join("a"), vec![7_u8; 100_000]).unwrap();
    let archive = f.archived(workspace, volume_id).await;
    let answer = f
        .client()
        .delete_volume(delete(workspace, volume_id, &archive))
        .await;
    answer.unwrap();
    f.damage(&archive.key).await;

    let op = Uuid::new_v4();
    let request = v1::RestoreRequest {
        context: context(workspace, op),
        archive_key: archive.key,
        replaces_volume_id: String::new(),
    };
    f.client().restore(request.clone()).await.unwrap();
    let job = f.ended(workspace).await;
    assert_eq!(
        (job.state(), job.reason.as_str()),
        (JobState::Failed, "ArchiveCorrupted")
    );
    // The same call is answered, not repeated.
    let stored = refused(
        f.client().restore(request).await,
        Code::FailedPrecondition,
        "ARCHIVE_CORRUPTED",
    );
    assert_eq!(stored.as_deref(), Some("ArchiveCorrupted"));
    assert!(f.archives(true).await.unwrap().restores.is_empty());
}
