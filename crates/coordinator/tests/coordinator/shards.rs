//! Replicas divide the shards among them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use windlass_coordinator::{
    Channel, Coordinator, Handle, Hints, Lease, Pass, PassError, Periods, RunError, Verdict,
};
use windlass_service::Readiness;

use crate::common::{Db, LONG, database, until};

/// Records which shards it was asked to pass over.
struct Sharded {
    passes: Arc<AtomicU64>,
}

impl Pass for Sharded {
    type Request = ();
    type Report = u32;

    async fn pass(&mut self, lease: &Lease, (): ()) -> Result<Verdict<u32>, PassError> {
        self.passes.fetch_add(1, Ordering::SeqCst);
        Ok(Verdict {
            report: lease.shard.index(),
            active: false,
        })
    }
}

struct ShardReplica {
    handle: Handle<Sharded>,
    readiness: Readiness,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn sharded(db: &Db, holder: &str, shards: u32) -> ShardReplica {
    let (shutdown, readiness) = (CancellationToken::new(), Readiness::new());
    let pass = |waker| {
        let passes = Arc::default();
        (waker, Sharded { passes })
    };
    let wakers = Hints::off().subscribe_each(Channel::Wc, shards);
    let coordinator = Coordinator {
        name: "wc",
        holder: holder.to_owned(),
        pool: db.pool(),
        lease_ttl: Duration::from_secs(3),
        periods: Periods::steady(LONG),
        passes: wakers.into_iter().map(pass).collect(),
    };
    let (handle, task) = coordinator.start(readiness.clone(), shutdown.clone());
    ShardReplica {
        handle,
        readiness,
        shutdown,
        task: tokio::spawn(task),
    }
}

impl ShardReplica {
    fn led(&self) -> usize {
        let status = self.handle.status();
        status.shards.iter().filter(|s| s.here).count()
    }

    /// Which shards passes are made of.
    async fn passes(&self) -> Vec<u32> {
        let mut passes = self.handle.run_led(|| ()).await.unwrap();
        passes.sort_unstable();
        passes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_divide_the_shards_and_divide_them_anew() {
    let db = database().await;
    let a = sharded(&db, "a", 4);
    until("one to lead all", || a.led() == 4).await;
    assert_eq!(a.passes().await, [0, 1, 2, 3]);
    let b = sharded(&db, "b", 4);
    until("halves", || (a.led(), b.led()) == (2, 2)).await;
    let mut all = a.passes().await;
    all.extend(b.passes().await);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert!(a.readiness.report().ready && b.readiness.report().ready);

    // Whoever does not lead the shard of an id says who does.
    let id = |n: u128| uuid::Uuid::from_u128(n);
    for n in 0..4 {
        let answers = [&a, &b].map(|r| r.handle.clone());
        let [from_a, from_b] = answers;
        let (from_a, from_b) = (
            from_a.run_owner(id(n), ()).await,
            from_b.run_owner(id(n), ()).await,
        );
        let (led, refused) = match (from_a, from_b) {
            (Ok(led), Err(refused)) => (led, (refused, "b does")),
            (Err(refused), Ok(led)) => (led, (refused, "a does")),
            other => panic!("{other:?}"),
        };
        assert_eq!(u128::from(led), n);
        let (RunError::NotLeader(who), wrong) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            who.contains("does shard") && !who.starts_with(wrong),
            "{who}"
        );
    }

    // One dies without a word, and comes back.
    b.task.abort();
    until("the other to lead all", || a.led() == 4).await;
    let b = sharded(&db, "b", 4);
    until("halves again", || (a.led(), b.led()) == (2, 2)).await;
    // One more: two, one and one.
    let c = sharded(&db, "c", 4);
    until("a division by three", || {
        let mut led = [a.led(), b.led(), c.led()];
        led.sort_unstable();
        led == [1, 1, 2]
    })
    .await;
    // One stops: what it led is taken at once, not after the lease.
    a.shutdown.cancel();
    a.task.await.unwrap().unwrap();
    until("halves without the first", || (b.led(), c.led()) == (2, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_shards_waits_until_the_first_is_gone() {
    let db = database().await;
    let old = sharded(&db, "old", 2);
    until("the old ones", || old.led() == 2).await;
    let highest = old.handle.status().epoch;
    let new = sharded(&db, "new", 4);
    until("a clear word", || {
        let error = new.handle.status().last_error;
        error.contains("old leads with WINDLASS_SHARDS=2, this replica has 4")
    })
    .await;
    // It waits, and that is no fault: a rolling upgrade goes on.
    until("readiness", || new.readiness.report().ready).await;
    assert_eq!((old.led(), new.led()), (2, 0));

    old.shutdown.cancel();
    old.task.await.unwrap().unwrap();
    until("the new ones", || new.led() == 4).await;
    until("no complaint", || new.handle.status().last_error.is_empty()).await;
    let status = new.handle.status();
    assert!(
        status.shards.iter().all(|s| s.epoch > highest),
        "{status:?}"
    );
    let mut epochs: Vec<i64> = status.shards.iter().map(|s| s.epoch).collect();
    epochs.dedup();
    assert_eq!(epochs.len(), 4, "every epoch is new: {epochs:?}");
}
