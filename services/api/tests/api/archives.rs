//! Without an agent: who may read archives, and what is told when none answers. With one: integration.

use tonic::{Code, Status};
use windlass_proto::v1;

use crate::common::{NOBODYS_ID, Workspaces, create, env, env_with, refused};

async fn download(client: &Workspaces, id: &str) -> Result<(), Status> {
    let request = v1::DownloadArchiveRequest {
        id: id.to_owned(),
        archive_key: "k".to_owned(),
    };
    client.clone().download_archive(request).await.map(drop)
}

async fn verify(client: &Workspaces, id: &str) -> Result<(), Status> {
    let request = v1::VerifyArchiveRequest {
        id: id.to_owned(),
        archive_key: "k".to_owned(),
    };
    client.clone().verify_archive(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_reads_archives() {
    let env = env_with(|config| config.service_token = Some("t".to_owned().into())).await;
    let id = create(&env.ann, "a").await.id;
    for id in [id.as_str(), NOBODYS_ID] {
        let not_found = (Code::NotFound, "WORKSPACE_NOT_FOUND");
        refused(download(&env.bob, id).await, not_found.0, not_found.1);
        refused(verify(&env.bob, id).await, not_found.0, not_found.1);
    }
    // The one host's agent is not there.
    for client in [&env.ann, &env.root] {
        let away = (Code::Unavailable, "AGENT_UNAVAILABLE");
        refused(download(client, &id).await, away.0, away.1);
        refused(verify(client, &id).await, away.0, away.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_service_token_there_is_no_way_to_archives() {
    let env = env().await;
    let id = create(&env.ann, "a").await.id;
    let none = (Code::FailedPrecondition, "ARCHIVES_NOT_CONFIGURED");
    refused(download(&env.ann, &id).await, none.0, none.1);
    refused(verify(&env.ann, &id).await, none.0, none.1);
}
