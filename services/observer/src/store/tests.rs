use chrono::TimeDelta;
use uuid::Uuid;
use windlass_domain::OpId;

use super::*;

const A: HostId = HostId(Uuid::from_u128(1));
const B: HostId = HostId(Uuid::from_u128(2));
const C: HostId = HostId(Uuid::from_u128(3));
const HOSTS: [HostId; 3] = [A, B, C];

fn ws() -> WorkspaceId {
    WorkspaceId(Uuid::from_u128(7))
}

fn op(n: u128) -> OpId {
    OpId(Uuid::from_u128(n))
}

fn key(n: u128) -> String {
    format!("prefix/{}/{}/home.tar.zst", ws(), op(n))
}

fn archive(n: u128) -> (WorkspaceId, Arc<ArchiveEvidence>) {
    let evidence = ArchiveEvidence {
        archive_op_id: op(n),
        key: key(n),
        bytes: 1,
        sha256: "00".into(),
        created_at: DateTime::UNIX_EPOCH,
        uncompressed_bytes: 1,
        entries: 1,
        volume_id: None,
        crash_consistent: false,
        changed_files: 0,
    };
    (ws(), Arc::new(evidence))
}

fn t(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

struct World {
    store: Store,
}

impl World {
    fn new() -> Self {
        let mut store = Store::default();
        store.keep(&HOSTS);
        Self { store }
    }

    fn tells(&mut self, host: HostId, news: ArchiveNews) -> HashSet<WorkspaceId> {
        let (scope, _) = self.store.question(host);
        self.store.apply(host, scope, news, t(0))
    }

    /// The agent that is asked for all lists these.
    fn lists(&mut self, archives: &[u128], listed_at: i64) -> HashSet<WorkspaceId> {
        let host = self.store.asked().unwrap();
        let news = ArchiveNews {
            whole: true,
            listed_at: Some(t(listed_at)),
            archives: archives.iter().map(|n| archive(*n)).collect(),
            ..ArchiveNews::default()
        };
        self.tells(host, news)
    }

    fn made(&mut self, host: HostId, whole: bool, archives: &[u128]) -> HashSet<WorkspaceId> {
        let news = ArchiveNews {
            whole,
            archives: archives.iter().map(|n| archive(*n)).collect(),
            ..ArchiveNews::default()
        };
        self.tells(host, news)
    }

    fn deleted(&mut self, host: HostId, archives: &[u128]) -> HashSet<WorkspaceId> {
        let news = ArchiveNews {
            gone_archives: archives.iter().map(|n| key(*n)).collect(),
            ..ArchiveNews::default()
        };
        self.tells(host, news)
    }

    fn there(&self) -> Vec<u128> {
        let seen = self.store.seen(ws()).archives;
        let mut there: Vec<u128> = seen.iter().map(|a| a.archive_op_id.0.as_u128()).collect();
        there.sort_unstable();
        there
    }
}

#[test]
fn one_agent_is_asked_for_all_and_the_others_for_their_own() {
    let world = World::new();
    assert_eq!(world.store.question(A).0, ArchiveScope::All);
    assert_eq!(world.store.question(B).0, ArchiveScope::Own);
    assert_eq!(world.store.asked(), Some(A));
}

#[test]
fn what_others_made_counts_until_the_list_has_shown_it() {
    let mut w = World::new();
    w.lists(&[1], 1);
    assert_eq!(w.made(B, false, &[2]), [ws()].into());
    assert_eq!(w.there(), [1, 2]);
    // A list that began before it was made does not show it yet.
    w.lists(&[1], 2);
    assert_eq!(w.there(), [1, 2]);
    w.lists(&[1, 2], 3);
    // Deleted elsewhere: it does not come back, also when it is told again.
    assert_eq!(w.lists(&[1], 4), [ws()].into());
    assert_eq!(w.there(), [1]);
    w.made(B, true, &[2]);
    assert_eq!(w.there(), [1]);
}

#[test]
fn what_others_deleted_is_gone_whatever_the_list_says() {
    let mut w = World::new();
    w.lists(&[1, 2], 1);
    w.made(C, false, &[3]);
    assert_eq!(w.deleted(B, &[2, 3]), [ws()].into());
    assert_eq!(w.there(), [1]);
    w.lists(&[1, 2], 2);
    assert_eq!(w.there(), [1]);
    // Forgotten by its agent once every list in use is younger.
    w.lists(&[1], 3);
    assert_eq!(w.made(B, true, &[]), [ws()].into());
    assert_eq!(w.there(), [1, 3]);
    assert_eq!(w.made(C, true, &[]), [ws()].into());
    assert_eq!(w.there(), [1]);
}

#[test]
fn restores_of_others_are_seen() {
    let mut w = World::new();
    w.lists(&[1], 1);
    let restore = RestoreEvidence {
        op_id: op(9),
        archive_key: key(1),
    };
    let marker = format!("{}/restored/{}", ws(), op(9));
    w.tells(
        B,
        ArchiveNews {
            restores: vec![(ws(), restore.clone())],
            ..ArchiveNews::default()
        },
    );
    assert_eq!(w.store.seen(ws()).restores, [restore]);
    w.tells(
        C,
        ArchiveNews {
            gone_restores: vec![marker],
            ..ArchiveNews::default()
        },
    );
    assert_eq!(w.store.seen(ws()).restores, []);
}

#[test]
fn only_a_later_list_of_the_same_agent_makes_the_store_fresher() {
    let mut w = World::new();
    let fresh = |w: &mut World, listed_at, began| {
        let host = w.store.asked().unwrap();
        let news = ArchiveNews {
            listed_at: Some(t(listed_at)),
            ..ArchiveNews::default()
        };
        w.store.apply(host, ArchiveScope::All, news, t(began));
        w.store.fresh
    };
    assert_eq!(fresh(&mut w, 1, 10), None, "it may have been stored before");
    assert_eq!(fresh(&mut w, 1, 11), None);
    assert_eq!(fresh(&mut w, 2, 12), Some(t(12)));
    assert_eq!(fresh(&mut w, 2, 13), Some(t(12)));
    w.store.failed(A, false, "away", &HOSTS);
    assert_eq!(w.store.asked(), Some(B));
    assert_eq!(fresh(&mut w, 50, 14), Some(t(12)), "another agent's list");
    assert_eq!(fresh(&mut w, 51, 15), Some(t(15)));
}

#[test]
fn another_agent_takes_over_and_answers_of_earlier_questions_do_not_count() {
    let mut w = World::new();
    w.lists(&[1], 1);
    // It answers, but cannot tell yet: it is given a while.
    w.store.failed(A, true, "not listed yet", &HOSTS);
    assert_eq!(
        (w.store.asked(), w.store.error()),
        (Some(A), "not listed yet")
    );
    w.store.failed(A, false, "away", &HOSTS);
    assert_eq!(w.store.asked(), Some(B));
    let late = ArchiveNews {
        whole: true,
        ..ArchiveNews::default()
    };
    assert!(w.store.apply(A, ArchiveScope::All, late, t(0)).is_empty());
    assert_eq!(
        w.there(),
        [1],
        "the last list stands until there is another"
    );
    assert_eq!(w.store.question(B), (ArchiveScope::All, String::new()));
    w.lists(&[1, 2], 2);
    assert_eq!(w.there(), [1, 2]);
    assert_eq!(w.store.error(), "");
    for (host, next) in [(B, C), (C, A)] {
        w.store.failed(host, false, "away", &HOSTS);
        assert_eq!(w.store.asked(), Some(next));
    }
    // A host that is unregistered takes its own changes with it.
    w.made(B, false, &[5]);
    assert_eq!(w.there(), [1, 2, 5]);
    w.store.keep(&[A]);
    assert_eq!(w.there(), [1, 2]);
}
