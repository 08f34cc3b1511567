use tonic::Code;
use uuid::Uuid;
use windlass_proto::v1;

use crate::harness::{Fixture, refused};

fn provision(epoch: i64) -> v1::ProvisionRequest {
    v1::ProvisionRequest {
        context: Some(v1::WorkContext {
            workspace_id: Uuid::new_v4().to_string(),
            op_id: Uuid::new_v4().to_string(),
            attempt: 0,
            epoch,
            ..v1::WorkContext::default()
        }),
        replaces_volume_id: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_changes_nothing_even_after_a_restart() {
    let mut f = Fixture::new().await;
    f.client().provision(provision(7)).await.unwrap();
    let stale = f.client().provision(provision(6)).await;
    assert_eq!(
        refused(stale, Code::FailedPrecondition, "STALE_EPOCH"),
        None
    );
    f.restart().await;
    let stale = f.client().provision(provision(6)).await;
    refused(stale, Code::FailedPrecondition, "STALE_EPOCH");
    assert_eq!(f.volumes().await.len(), 1);

    // gc's epochs are its own.
    let delete = |epoch| v1::DeleteArchivesRequest {
        epoch,
        ..v1::DeleteArchivesRequest::default()
    };
    f.client().delete_archives(delete(2)).await.unwrap();
    let stale = f.client().delete_archives(delete(1)).await;
    refused(stale, Code::FailedPrecondition, "STALE_EPOCH");
    let host = f.host().await;
    assert_eq!((host.wc_epoch, host.gc_epoch), (7, 2));
    assert!(f.state_file("epochs.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_name_what_is_wrong() {
    let f = Fixture::new().await;
    let field = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument);
        windlass_service::error::metadata_of(&status, "field").unwrap()
    };
    let mut request = provision(1);
    request.context.as_mut().unwrap().workspace_id = "../../etc".to_owned();
    let status = f.client().provision(request).await.unwrap_err();
    assert_eq!(field(status), "context.workspace_id");
    let status = f.client().provision(provision(0)).await.unwrap_err();
    assert_eq!(field(status), "context.epoch");
    let request = v1::DeleteArchivesRequest {
        epoch: 1,
        keys: vec!["elsewhere/x".to_owned()],
        ..v1::DeleteArchivesRequest::default()
    };
    let status = f.client().delete_archives(request).await.unwrap_err();
    assert_eq!(field(status), "keys[0]");
    let request = v1::RestoreRequest {
        context: provision(1).context,
        archive_key: format!("w/{}/{}/home.tar.zst", Uuid::new_v4(), Uuid::new_v4()),
        replaces_volume_id: String::new(),
    };
    let status = f.client().restore(request).await.unwrap_err();
    assert_eq!(field(status), "archive_key");
}
