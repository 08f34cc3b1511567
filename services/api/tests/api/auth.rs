//! Tokens.

use std::time::{Duration, Instant};

use tonic::Code;
use windlass_proto::v1::{self, workspace_service_client::WorkspaceServiceClient};

use crate::common::{create, env, get, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_needs_a_valid_token() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let channel = windlass_service::channel(&env.server.address.to_string()).unwrap();
    let mut nobody = WorkspaceServiceClient::new(channel);
    let request = v1::GetWorkspaceRequest {
        id: made.id.clone(),
    };
    refused(
        nobody.get_workspace(request).await,
        Code::Unauthenticated,
        "TOKEN_MISSING",
    );
    let long = "x".repeat(8000);
    for wrong in ["nobody", "ann ", "ANN", "' OR true --", long.as_str()] {
        let client = env.server.workspaces(wrong);
        let got = get(&client, &made.id).await;
        // The trailing blank is not part of a header's value.
        if wrong == "ann " {
            got.unwrap();
        } else {
            refused(got, Code::Unauthenticated, "TOKEN_INVALID");
        }
    }
    assert_eq!(
        env.db
            .sql("SELECT count(*) FROM tokens WHERE sha256 = 'ann'::bytea")
            .await,
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_opens_nothing_soon_after() {
    let env = env().await;
    let made = create(&env.ann, "demo").await;
    let revoke = "UPDATE tokens SET revoked_at = now()
        WHERE user_id = (SELECT id FROM users WHERE name = 'ann')";
    env.db.sql(revoke).await;
    let revoked = Instant::now();
    loop {
        let asked = revoked.elapsed();
        match get(&env.ann, &made.id).await {
            Ok(_) => assert!(asked < Duration::from_secs(12)),
            Err(status) => {
                refused::<()>(Err(status), Code::Unauthenticated, "TOKEN_INVALID");
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The workspace is there for others.
    get(&env.root, &made.id).await.unwrap();
}
