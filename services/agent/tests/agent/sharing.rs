//! Several agents of one store: one lists it, and a steady state costs no request.

use std::time::{Duration, Instant};

use uuid::Uuid;
use windlass_proto::v1::{self, ArchiveScope};

use crate::follow::Follower;
use crate::harness::{Fixture, context};
use crate::wire::ToStore;

/// Archives a new home without asking for a list; returns its key.
async fn archived(f: &Fixture) -> String {
    let (workspace, volume_id) = f.provisioned().await;
    let op = Uuid::new_v4();
    let request = v1::ArchiveRequest {
        context: context(workspace, op),
        volume_id: volume_id.to_string(),
        label: None,
        crash_consistent: false,
    };
    f.client().archive(request).await.unwrap();
    f.succeeded(workspace).await;
    format!("w/{workspace}/{op}/home.tar.zst")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_agents_one_lists_the_store() {
    let first = Fixture::stopped(&[]).await;
    let store = ToStore::new(&first.s3.as_ref().unwrap().endpoint()).await;
    let mut agents = vec![first];
    for _ in 0..2 {
        agents.push(Fixture::stopped(&[]).await);
    }
    for agent in &mut agents {
        agent.set_flag("--s3-endpoint", &store.endpoint());
        agent.start().await;
    }
    let mut followers = vec![
        Follower::of(ArchiveScope::All),
        Follower::of(ArchiveScope::Own),
        Follower::of(ArchiveScope::Own),
    ];
    for _ in 0..5 {
        for (agent, follower) in agents.iter().zip(&mut followers) {
            follower.follow(agent.client()).await;
            assert_eq!(follower.end.archive_error, "");
        }
    }
    assert_eq!(store.lists(), 1, "{:?}", store.requests());
    assert!(followers[0].end.archive_list_time.is_some());
    assert!(followers[1].end.archive_list_time.is_none());

    // What each makes is told by it, without a list.
    let mut keys = Vec::new();
    for agent in &agents {
        keys.push(archived(agent).await);
    }
    for ((agent, follower), key) in agents.iter().zip(&mut followers).zip(&keys) {
        // The end of the job enters the model a moment after the archive is told.
        follower
            .until(agent.client(), "the archive and the end of its job", |f| {
                let mut jobs = f.jobs.values().flatten();
                let ended = |job: &v1::Job| job.end_time.is_some();
                f.archives.contains_key(key)
                    && jobs.all(|job| ended(job) && job.operation() == v1::Operation::Archiving)
            })
            .await;
        assert_eq!(follower.archives.len(), 1);
    }
    // A steady state.
    let before = store.requests().len();
    for _ in 0..20 {
        for (agent, follower) in agents.iter().zip(&mut followers) {
            follower.follow(agent.client()).await;
            assert_eq!(follower.entries, 0);
        }
    }
    assert_eq!(store.requests().len(), before);
    assert_eq!(store.lists(), 1);

    // A deletion is told by whom it was asked of.
    let delete = v1::DeleteArchivesRequest {
        epoch: 1,
        keys: vec![keys[2].clone()],
        abort_uploads_older_than: None,
    };
    agents[1].client().delete_archives(delete).await.unwrap();
    followers[1].follow(agents[1].client()).await;
    assert!(followers[1].removed_archives.contains(&keys[2]));
    let mut new = Follower::of(ArchiveScope::Own);
    new.follow(agents[1].client()).await;
    assert!(new.removed_archives.contains(&keys[2]));
    assert_eq!(new.archives.len(), 1);

    // Whoever lists it sees all of it, and its position is not one of another scope.
    followers[2].scope = ArchiveScope::All;
    followers[2].follow(agents[2].client()).await;
    assert_eq!(followers[2].wholes.1, 2);
    let known: Vec<_> = followers[2].archives.keys().cloned().collect();
    let mut expected = keys[..2].to_vec();
    expected.sort();
    assert_eq!(known, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_listed_on_its_own_and_nobody_asking_ends_the_lists() {
    let mut f = Fixture::stopped(&["--archive-resync", "200ms"]).await;
    let store = ToStore::new(&f.s3.as_ref().unwrap().endpoint()).await;
    f.set_flag("--s3-endpoint", &store.endpoint());
    f.start().await;
    let key = archived(&f).await;
    let workspace = key.split('/').nth(1).unwrap();
    let before = store.lists();
    for times in 1..3 {
        let request = v1::ListArchivesRequest {
            prefix: format!("{workspace}/"),
            ..v1::ListArchivesRequest::default()
        };
        let answer = f.client().list_archives(request).await.unwrap();
        let (mut stream, mut found) = (answer.into_inner(), Vec::new());
        while let Some(chunk) = stream.message().await.unwrap() {
            found.extend(chunk.archives.into_iter().map(|a| a.key));
        }
        assert_eq!(found, [key.as_str()]);
        assert_eq!(store.lists(), before + times);
    }
    let of_prefix = |line: &String| line.contains("list-type=2") && line.contains(workspace);
    assert_eq!(
        store.requests().iter().filter(|r| of_prefix(r)).count(),
        2,
        "{:?}",
        store.requests()
    );

    // Lists go on while somebody asks, and end when nobody does.
    let mut follower = Follower::of(ArchiveScope::All);
    let before = store.lists();
    follower
        .until(f.client(), "several lists", |_| store.lists() >= before + 3)
        .await;
    assert_eq!(follower.archives.len(), 1);
    let begun = Instant::now();
    let (mut lists, mut since) = (store.lists(), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        if store.lists() != lists {
            (lists, since) = (store.lists(), Instant::now());
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "lists go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // And begin again.
    follower.follow(f.client()).await;
    assert_eq!(follower.end.archive_error, "");
    assert_eq!(follower.archives.len(), 1);
    assert!(store.lists() > lists);
}
