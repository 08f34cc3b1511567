use tonic::Code;
use uuid::Uuid;
use windlass_proto::v1;

use crate::harness::{Fixture, context, refused};

fn delete(epoch: i64, keys: &[&str]) -> v1::DeleteArchivesRequest {
    v1::DeleteArchivesRequest {
        epoch,
        keys: keys.iter().map(|&k| k.to_owned()).collect(),
        abort_uploads_older_than: Some(prost_types::Duration::default()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_deleted_by_key_marker_first() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let first = f.archived(workspace, volume_id).await;
    let second = f.archived(workspace, volume_id).await;
    assert_eq!(f.archives(false).await.unwrap().archives.len(), 2);

    // The data's key alone takes the marker with it.
    let deleted = f
        .client()
        .delete_archives(delete(1, &[&first.key]))
        .await
        .unwrap();
    let deleted = deleted.into_inner();
    assert_eq!(deleted.deleted_keys, std::slice::from_ref(&first.key));
    assert!(deleted.failed_keys.is_empty());
    for refresh in [false, true] {
        let all = f.archives(refresh).await.unwrap();
        assert_eq!(
            all.archives,
            std::slice::from_ref(&second),
            "refresh: {refresh}"
        );
        assert!(all.loose.is_empty(), "refresh: {refresh}");
    }
    // The marker's key alone leaves the data behind, loose.
    let marker = format!("{}.meta", second.key);
    f.client()
        .delete_archives(delete(1, &[&marker]))
        .await
        .unwrap();
    for refresh in [false, true] {
        let all = f.archives(refresh).await.unwrap();
        assert!(all.archives.is_empty(), "refresh: {refresh}");
        let loose: Vec<&str> = all.loose.iter().map(|l| l.key.as_str()).collect();
        assert_eq!(loose, [second.key.as_str()], "refresh: {refresh}");
    }
    // What is absent counts as deleted.
    let again = f
        .client()
        .delete_archives(delete(1, &[&marker, &second.key]))
        .await
        .unwrap();
    assert_eq!(again.into_inner().deleted_keys.len(), 2);
    assert!(f.archives(true).await.unwrap().loose.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_list_may_take_longer_than_other_calls() {
    let f = Fixture::with(&["--request-timeout", "1ms"]).await;
    // Any list takes longer than that.
    f.archives(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_cannot_be_read_makes_no_archive() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let archive = f.archived(workspace, volume_id).await;
    f.damage(&format!("{}.meta", archive.key)).await;
    let mut f = f;
    f.restart().await;
    let all = f.archives(true).await.unwrap();
    assert!(all.archives.is_empty());
    assert_eq!(all.loose.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_not_made_twice() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let archive = f.archived(workspace, volume_id).await;
    let request = v1::ArchiveRequest {
        context: context(workspace, archive.archive_op_id.parse().unwrap()),
        volume_id: volume_id.to_string(),
        label: None,
        crash_consistent: false,
    };
    f.client().archive(request).await.unwrap();
    f.succeeded(workspace).await;
    assert_eq!(f.archives(true).await.unwrap().archives, [archive]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_not_there_is_not_restored() {
    let f = Fixture::new().await;
    let workspace = Uuid::new_v4();
    let request = v1::RestoreRequest {
        context: context(workspace, Uuid::new_v4()),
        archive_key: format!("w/{workspace}/{}/home.tar.zst", Uuid::new_v4()),
        replaces_volume_id: String::new(),
    };
    let answer = f.client().restore(request).await;
    refused(answer, Code::FailedPrecondition, "ARCHIVE_NOT_FOUND");
    assert!(f.volumes().await.is_empty());
}
