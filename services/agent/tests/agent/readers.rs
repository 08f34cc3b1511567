use sha2::{Digest, Sha256};
use tonic::{Code, Status};
use uuid::Uuid;
use windlass_proto::v1;

use crate::harness::{Fixture, refused};

fn read(workspace: Uuid, key: &str) -> v1::ReadArchiveRequest {
    v1::ReadArchiveRequest {
        workspace_id: workspace.to_string(),
        archive_key: key.to_owned(),
    }
}

fn verify(workspace: Uuid, key: &str) -> v1::AgentServiceVerifyArchiveRequest {
    v1::AgentServiceVerifyArchiveRequest {
        workspace_id: workspace.to_string(),
        archive_key: key.to_owned(),
    }
}

async fn whole(
    f: &Fixture,
    request: v1::ReadArchiveRequest,
) -> Result<(v1::ArchiveInfo, Vec<u8>), Status> {
    let mut stream = f.client().read_archive(request).await?.into_inner();
    let first = stream.message().await?.unwrap();
    assert!(first.data.is_empty());
    let mut data = Vec::new();
    while let Some(message) = stream.message().await? {
        assert!(message.archive.is_none());
        assert!(!message.data.is_empty() && message.data.len() <= 1 << 20);
        data.extend(message.data);
    }
    Ok((first.archive.unwrap(), data))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_read_whole_and_verified() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    // More than one range of the store, and more than any buffer on the way.
    let noise: Vec<u8> = (0..600_000_u32)
        .flat_map(|i| Sha256::digest(i.to_le_bytes()))
        .collect();
    std::fs::write(f.home(workspace).await.join("noise"), &noise).unwrap();
    let archive = f.archived(workspace, volume_id).await;
    assert!(archive.bytes > 16 << 20);

    let (told, data) = whole(&f, read(workspace, &archive.key)).await.unwrap();
    assert_eq!(told, archive);
    assert_eq!(data.len() as u64, archive.bytes);
    let digest: String = Sha256::digest(&data)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(digest, archive.sha256);
    let request = verify(workspace, &archive.key);
    let verified = f.client().verify_archive(request).await.unwrap();
    assert_eq!(verified.into_inner().archive, Some(archive.clone()));

    // Readers that leave early give their places back.
    for _ in 0..20 {
        let begun = std::time::Instant::now();
        let mut stream = loop {
            let request = read(workspace, &archive.key);
            match f.client().read_archive(request).await {
                Ok(stream) => break stream.into_inner(),
                Err(status) => refused::<()>(Err(status), Code::ResourceExhausted, "QUEUE_FULL"),
            };
            assert!(begun.elapsed().as_secs() < 30, "no place is given back");
        };
        stream.message().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_and_other_archives_are_not_read() {
    let f = Fixture::new().await;
    let (workspace, volume_id) = f.provisioned().await;
    let archive = f.archived(workspace, volume_id).await;

    let other = Uuid::new_v4();
    let answer = whole(&f, read(other, &archive.key)).await;
    refused(answer, Code::InvalidArgument, "INVALID_FIELD");
    let answer = f.client().verify_archive(verify(other, &archive.key)).await;
    refused(answer, Code::InvalidArgument, "INVALID_FIELD");
    let missing = format!("w/{workspace}/{other}/home.tar.zst");
    let answer = whole(&f, read(workspace, &missing)).await;
    refused(answer, Code::FailedPrecondition, "ARCHIVE_NOT_FOUND");
    let answer = f.client().verify_archive(verify(workspace, &missing)).await;
    refused(answer, Code::FailedPrecondition, "ARCHIVE_NOT_FOUND");

    f.damage(&archive.key).await;
    let answer = whole(&f, read(workspace, &archive.key)).await;
    refused(answer, Code::FailedPrecondition, "ARCHIVE_CORRUPTED");
    let answer = f
        .client()
        .verify_archive(verify(workspace, &archive.key))
        .await;
    refused(answer, Code::FailedPrecondition, "ARCHIVE_CORRUPTED");
}
