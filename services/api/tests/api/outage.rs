//! PostgreSQL goes away and comes back.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;
use windlass_local::postgres::Postgres;
use windlass_proto::v1;

use crate::common::{PATIENCE, create, database, describe, env, eventually, get, refused, serve};

#[tokio::test(flavor = "multi_thread")]
async fn everything_recovers_by_itself() {
    let mut env = env().await;
    eventually("ready", || async { env.server.readyz().await.0 == 200 }).await;
    let made = create(&env.ann, "demo").await;
    let still = create(&env.ann, "still").await;
    let mut watch = env
        .ann
        .clone()
        .watch_workspaces(v1::WatchWorkspacesRequest::default())
        .await
        .unwrap()
        .into_inner();
    while !watch.message().await.unwrap().unwrap().synced {}

    // Stopped as an administrator does, and killed.
    for signal in [Signal::INT, Signal::KILL] {
        let postgres = env.db.postgres.take().unwrap();
        let pid = Pid::from_raw(postgres.process().pid()).unwrap();
        kill_process(pid, signal).unwrap();
        eventually("not ready", || async {
            let (status, body) = env.server.readyz().await;
            status == 503 && body.contains(r#""postgres":{"ready":false"#)
        })
        .await;
        let asked = Instant::now();
        let stranger = env.server.workspaces("unheard-of");
        let answers = tokio::join!(
            get(&env.ann, &made.id),
            crate::common::try_create(&env.ann, crate::common::named("other")),
            crate::common::delete(&env.ann, &made.id),
            get(&stranger, &made.id),
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            refused(answer, Code::Unavailable, "DATABASE_UNAVAILABLE");
        }
        assert!(asked.elapsed() < Duration::from_secs(10));
        postgres.process().wait().await;

        env.db.postgres = Some(Postgres::start(&env.db.config).await.unwrap());
        eventually("ready", || async { env.server.readyz().await.0 == 200 }).await;
        let text = format!("after {signal:?}");
        describe(&env.ann, &made.id, &text).await;
        // The stream that was open before goes on. What nobody wrote is told too: a server that was started anew may
        // have lost transactions, and nothing else need show it.
        let (mut changed, mut unchanged) = (false, false);
        while !(changed && unchanged) {
            let message = tokio::time::timeout(PATIENCE, watch.message()).await;
            if let Some(told) = message.unwrap().unwrap().unwrap().workspace {
                changed |= told.description == text;
                unchanged |= told.id == still.id;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_before_postgresql_does() {
    let mut db = database().await;
    db.postgres.take().unwrap().stop().await;
    let mut config = db.api_config();
    config.agent_address = Some("http://127.0.0.1:7401".to_owned());
    let server = serve(config).await;
    let ann = server.workspaces("ann");
    refused(
        get(&ann, crate::common::NOBODYS_ID).await,
        Code::Unavailable,
        "DATABASE_UNAVAILABLE",
    );
    assert_eq!(server.readyz().await.0, 503);
    db.postgres = Some(Postgres::start(&db.config).await.unwrap());
    eventually("ready", || async { server.readyz().await.0 == 200 }).await;
    create(&ann, "demo").await;
    let hosts = db.sql("SELECT name FROM hosts ORDER BY name").await;
    assert_eq!(hosts, ["default", "h1"]);
}
