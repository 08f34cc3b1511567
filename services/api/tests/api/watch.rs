//! WatchWorkspaces.

use std::collections::BTreeMap;

use tonic::{Code, Streaming};
use windlass_proto::v1::{self, WatchWorkspacesResponse};

use crate::common::{PATIENCE, Workspaces, create, delete, describe, env, invalid, refused};

async fn open(client: &Workspaces, id: &str, resume_token: &str) -> Watcher {
    let request = v1::WatchWorkspacesRequest {
        id: id.to_owned(),
        resume_token: resume_token.to_owned(),
    };
    let stream = client.clone().watch_workspaces(request).await.unwrap();
    Watcher(stream.into_inner())
}

struct Watcher(Streaming<WatchWorkspacesResponse>);

impl Watcher {
    async fn next(&mut self) -> WatchWorkspacesResponse {
        let next = tokio::time::timeout(PATIENCE, self.0.message()).await;
        next.expect("a message in time").unwrap().unwrap()
    }

    /// The first state by name, and the token after it.
    async fn first(&mut self) -> (BTreeMap<String, v1::Workspace>, String) {
        let mut state = BTreeMap::new();
        loop {
            let message = self.next().await;
            if message.synced {
                assert_eq!(message.workspace, None);
                assert!(!message.resume_token.is_empty());
                return (state, message.resume_token);
            }
            assert_eq!(message.resume_token, "");
            let workspace = message.workspace.unwrap();
            state.insert(workspace.name.clone(), workspace);
        }
    }

    /// Reads until a workspace is as wished; returns it with the token after it.
    async fn until(
        &mut self,
        mut wished: impl FnMut(&v1::Workspace) -> bool,
    ) -> (v1::Workspace, String) {
        loop {
            let message = self.next().await;
            assert!(!message.synced && !message.resume_token.is_empty());
            if let Some(workspace) = message.workspace.filter(|w| wished(w)) {
                return (workspace, message.resume_token);
            }
        }
    }
}

fn names(state: &BTreeMap<String, v1::Workspace>) -> Vec<&str> {
    state.keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn first_the_state_then_the_changes() {
    let env = env().await;
    let a = create(&env.ann, "a").await;
    let b = create(&env.ann, "b").await;
    create(&env.bob, "c").await;
    delete(&env.ann, &b.id).await.unwrap();
    env.db.set(&b.id, "phase = 'DELETED'").await;

    let mut anns = open(&env.ann, "", "").await;
    let mut roots = open(&env.root, "", "").await;
    let mut just_a = open(&env.ann, &a.id, "").await;
    let (state, _) = anns.first().await;
    assert_eq!(names(&state), ["a"]);
    assert_eq!(state["a"], a);
    assert_eq!(names(&roots.first().await.0), ["a", "c"]);
    assert_eq!(names(&just_a.first().await.0), ["a"]);

    // What others write is seen as well: wc moves it here.
    env.db.set(&a.id, "phase = 'RUNNING'").await;
    for watcher in [&mut anns, &mut roots, &mut just_a] {
        let (seen, _) = watcher.until(|w| w.id == a.id).await;
        assert_eq!(seen.phase(), v1::Phase::Running);
    }
    create(&env.bob, "bobs-new").await;
    let d = create(&env.ann, "d").await;
    describe(&env.ann, &a.id, "last").await;
    // A row that is told once more is told as it is by then: the last change may come before the others.
    let mut missing = vec!["bobs-new", "last"];
    roots
        .until(|w| {
            missing.retain(|word| w.name != *word && w.description != *word);
            missing.is_empty()
        })
        .await;
    // In view is only one's own, and only what was asked for.
    let mut seen = Vec::new();
    anns.until(|w| {
        assert_eq!(w.owner, "ann");
        w.description == "last"
    })
    .await;
    just_a
        .until(|w| {
            assert_eq!(w.id, a.id);
            w.description == "last"
        })
        .await;
    // Deleted, and then gone for good.
    delete(&env.ann, &d.id).await.unwrap();
    anns.until(|w| w.id == d.id && w.delete_time.is_some())
        .await;
    env.db.set(&d.id, "phase = 'DELETED'").await;
    let (gone, _) = anns
        .until(|w| w.id == d.id && w.phase() == v1::Phase::Deleted)
        .await;
    seen.push(gone.name);
    assert_eq!(seen, ["d"]);

    // One that is gone for good can be watched by its id.
    let (state, _) = open(&env.ann, &b.id, "").await.first().await;
    assert_eq!(state["b"].phase(), v1::Phase::Deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_resumed_where_it_ended() {
    let env = env().await;
    let a = create(&env.ann, "a").await;
    create(&env.ann, "b").await;
    let c = create(&env.ann, "c").await;
    let mut first = open(&env.ann, "", "").await;
    let (_, after_state) = first.first().await;
    describe(&env.ann, &a.id, "one").await;
    let (_, after_one) = first.until(|w| w.description == "one").await;
    drop(first);
    describe(&env.ann, &c.id, "two").await;
    delete(&env.ann, &a.id).await.unwrap();
    env.db.set(&a.id, "phase = 'DELETED'").await;

    let (changed, token) = open(&env.ann, "", &after_one).await.first().await;
    assert_eq!(names(&changed), ["a", "c"]);
    assert_eq!(changed["a"].phase(), v1::Phase::Deleted);
    assert_eq!(changed["c"].description, "two");
    let (changed, _) = open(&env.ann, "", &after_state).await.first().await;
    assert_eq!(names(&changed), ["a", "c"]);
    let mut again = open(&env.ann, "", &token).await;
    assert_eq!(names(&again.first().await.0), [""; 0]);
    describe(&env.ann, &c.id, "three").await;
    again.until(|w| w.description == "three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_watch_refuses() {
    let env = env().await;
    let a = create(&env.ann, "a").await;
    let (_, all) = open(&env.ann, "", "").await.first().await;
    let (_, one) = open(&env.ann, &a.id, "").await.first().await;
    let watch = |client: &Workspaces, id: &str, token: &str| {
        let request = v1::WatchWorkspacesRequest {
            id: id.to_owned(),
            resume_token: token.to_owned(),
        };
        let mut client = client.clone();
        async move { client.watch_workspaces(request).await.map(|_| ()) }
    };
    invalid(watch(&env.ann, "x", "").await, "id");
    for (client, id, token) in [
        (&env.ann, "", "nonsense"),
        (&env.ann, "", one.as_str()),
        (&env.ann, a.id.as_str(), all.as_str()),
        (&env.bob, "", all.as_str()),
        (&env.root, "", all.as_str()),
    ] {
        invalid(watch(client, id, token).await, "resume_token");
    }
    // A token of a database that is further than this one.
    let mut forged: serde_json::Value =
        serde_json::from_slice(&hex::decode(&all).unwrap()).unwrap();
    forged["xid"] = serde_json::json!(i64::MAX);
    let forged = hex::encode(forged.to_string());
    invalid(watch(&env.ann, "", &forged).await, "resume_token");
    refused(
        watch(&env.ann, "00000000-0000-4000-8000-000000000000", "").await,
        Code::NotFound,
        "WORKSPACE_NOT_FOUND",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_falls_behind_catches_up() {
    let env = env().await;
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(create(&env.ann, &format!("w{n:02}")).await.id);
    }
    let mut slow = open(&env.ann, "", "").await;
    let mut quick = open(&env.ann, "", "").await;
    slow.first().await;
    quick.first().await;
    // Much more than fits into its buffers, in more batches than it may be behind: each row is 1 KiB or
    // more on the wire, and each round is waited for.
    let text = "x".repeat(1000);
    let superuser = env.db.client().await;
    for round in 0..150 {
        let update =
            format!("UPDATE workspaces SET description = '{round} {text}'; NOTIFY \"api:wake\"");
        superuser.batch_execute(&update).await.unwrap();
        let marker = format!("{round} ");
        for id in &ids {
            if round % 50 == 49 || *id == ids[0] {
                quick.until(|w| w.description.starts_with(&marker)).await;
            }
        }
    }
    let mut last = BTreeMap::new();
    let mut messages = 0;
    while last.len() < ids.len() || last.values().any(|d: &String| !d.starts_with("149 ")) {
        if let Some(workspace) = slow.next().await.workspace {
            messages += 1;
            last.insert(workspace.id, workspace.description);
        }
    }
    assert!(messages < 150 * 40, "nothing was skipped: {messages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_ends_its_streams() {
    let env = env().await;
    create(&env.ann, "a").await;
    let mut watcher = open(&env.ann, "", "").await;
    watcher.first().await;
    env.server.shutdown.cancel();
    let end = tokio::time::timeout(PATIENCE, watcher.0.message())
        .await
        .unwrap();
    refused(end, Code::Unavailable, "DRAINING");
    drop((watcher, env.ann, env.bob, env.root));
    let run = tokio::time::timeout(PATIENCE, env.server.run).await;
    run.unwrap().unwrap().unwrap();
}

/// Two servers, one database: a change made through one is seen through the other.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_see_each_others_changes() {
    let env = env().await;
    let other = crate::common::serve(env.db.api_config()).await;
    let mut watcher = open(&other.workspaces("ann"), "", "").await;
    watcher.first().await;
    for n in 0..5 {
        let name = format!("w{n}");
        create(&env.ann, &name).await;
        watcher.until(|w| w.name == name).await;
    }
}

/// Every change, by several writers at once, arrives as its last state.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_state_always_arrives() {
    let env = env().await;
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(create(&env.ann, &format!("w{n}")).await.id);
    }
    let mut watcher = open(&env.ann, "", "").await;
    watcher.first().await;
    let writers = ids.iter().map(|id| {
        let ann = env.ann.clone();
        let id = id.clone();
        async move {
            for n in 0..20 {
                describe(&ann, &id, &n.to_string()).await;
            }
        }
    });
    // Somebody's transaction is open all the while, with a change of its own.
    let slow = env.db.client().await;
    slow.batch_execute("BEGIN; INSERT INTO audit_log (actor, action) VALUES ('x', 'x')")
        .await
        .unwrap();
    futures::future::join_all(writers).await;
    slow.batch_execute("COMMIT").await.unwrap();
    let mut last = BTreeMap::new();
    while last.len() < ids.len() || last.values().any(|d| d != "19") {
        if let Some(workspace) = watcher.next().await.workspace {
            last.insert(workspace.id, workspace.description);
        }
    }
}

/// What the poller reads for a change it reads for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_read_once_for_all_watchers() {
    let db = crate::common::database().await;
    db.sql("ALTER ROLE windlass_api SET log_statement = 'all'")
        .await;
    let server = crate::common::serve(db.api_config()).await;
    let ann = server.workspaces("ann");
    let id = create(&ann, "a").await.id;
    let log = db.config.dir.join("postgres.log");
    let reads = || {
        let log = std::fs::read_to_string(&log).unwrap();
        let reads = |line: &&str| line.contains("execute") && line.contains("\"workspaces\"");
        log.lines().filter(reads).count()
    };
    assert!(reads() > 0, "statements are logged");

    let mut watchers: Vec<Watcher> = Vec::new();
    for count in [1, 200] {
        let mut client = ann.clone();
        while watchers.len() < count {
            if watchers.len().is_multiple_of(50) {
                client = server.workspaces(["ann", "root"][watchers.len() / 50 % 2]);
            }
            let mut watcher = open(&client, "", "").await;
            watcher.first().await;
            watchers.push(watcher);
        }
        let before = reads();
        let text = format!("for {count}");
        db.sql(&format!(
            "UPDATE workspaces SET description = '{text}' WHERE id = '{id}'; NOTIFY \"api:wake\""
        ))
        .await;
        for watcher in &mut watchers {
            watcher.until(|w| w.description == text).await;
        }
        let cost = reads() - before;
        assert!(cost <= 6, "{cost} reads for {count} watchers");
    }
}

/// A token that is revoked, and an admin who is none any more; all tokens are looked up at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_soon_after_its_token() {
    let db = crate::common::database().await;
    db.sql("ALTER ROLE windlass_api SET log_statement = 'all'")
        .await;
    let server = crate::common::serve(db.api_config()).await;
    let (ann, bob) = (server.workspaces("ann"), server.workspaces("bob"));
    let root = server.workspaces("root");
    let a = create(&ann, "a").await;
    let mut ended = Vec::new();
    for n in 0..60 {
        let (client, id) = [(&ann, ""), (&ann, a.id.as_str()), (&root, "")][n % 3];
        ended.push(open(client, id, "").await);
    }
    let mut stays = open(&bob, "", "").await;
    for watcher in ended.iter_mut().chain([&mut stays]) {
        watcher.first().await;
    }
    let log = db.config.dir.join("postgres.log");
    let lookups = || {
        let log = std::fs::read_to_string(&log).unwrap();
        let lookup = |line: &&str| line.contains("execute") && line.contains("\"tokens\"");
        log.lines().filter(lookup).count()
    };
    let before = lookups();
    assert!(before > 0, "statements are logged");
    db.sql(
        "UPDATE users SET role = 'user' WHERE name = 'root';
         UPDATE tokens SET revoked_at = now()
         WHERE user_id = (SELECT id FROM users WHERE name = 'ann')",
    )
    .await;
    for watcher in &mut ended {
        let end = loop {
            let next = tokio::time::timeout(PATIENCE, watcher.0.message()).await;
            match next.expect("an end in time") {
                Ok(Some(message)) => assert_eq!(message.workspace, None),
                end => break end,
            }
        };
        refused(end, Code::Unauthenticated, "TOKEN_INVALID");
    }
    let cost = lookups() - before;
    assert!(cost <= 4, "{cost} lookups for {} watchers", ended.len());
    create(&bob, "b").await;
    stays.until(|w| w.name == "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_come_in_pages() {
    let env = env().await;
    create(&env.ann, "a").await;
    env.db
        .sql(
            "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state)
             SELECT gen_random_uuid(), owner_id, host_id, 'w' || n, image, desired_state
             FROM workspaces, generate_series(1, 450) AS n",
        )
        .await;
    let mut watcher = open(&env.ann, "", "").await;
    let (state, token) = watcher.first().await;
    assert_eq!(state.len(), 451);
    env.db
        .sql("UPDATE workspaces SET description = 'new'; NOTIFY \"api:wake\"")
        .await;
    let mut seen = BTreeMap::new();
    while seen.len() < 451 {
        let (workspace, token) = watcher.until(|w| w.description == "new").await;
        seen.insert(workspace.name, token);
    }
    // Resumed: all again, from wherever one was.
    let (state, _) = open(&env.ann, "", &token).await.first().await;
    assert_eq!(state.len(), 451);
}
