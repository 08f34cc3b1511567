//! The loop of a coordinator against a real PostgreSQL and Redis: one leader, passes by the clock, on hints
//! and on request, and a database that goes away and comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use windlass_coordinator::{
    Channel, Coordinator, Handle, Hints, Lease, Pass, PassError, Periods, RunError, Verdict, Waker,
};
use windlass_db::{Bootstrap, Pool};
use windlass_local::{
    ports::free_port,
    postgres::{self, Postgres},
    redis::{self, Redis},
};
use windlass_service::{Readiness, telemetry};

const LONG: Duration = Duration::from_secs(3600);

/// Counts its passes, and fails while the database cannot be reached.
#[derive(Clone)]
struct Counting {
    pool: Pool,
    passes: Arc<AtomicU64>,
    slow: Duration,
}

impl Pass for Counting {
    type Request = ();
    type Report = u64;

    async fn pass(&mut self, _lease: &Lease, (): ()) -> Result<Verdict<u64>, PassError> {
        tokio::time::sleep(self.slow).await;
        self.pool.ping().await?;
        Ok(Verdict {
            report: self.passes.fetch_add(1, Ordering::SeqCst) + 1,
            active: false,
        })
    }
}

struct Db {
    postgres: Postgres,
    config: postgres::Config,
    _dir: TempDir,
}

async fn database() -> Db {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut config = postgres::Config::new(dir.path().join("pg"), free_port().unwrap());
    config.durable = false;
    config.die_with_parent = true;
    let postgres = Postgres::start(&config).await.unwrap();
    let password = ("windlass_wc".to_owned(), "pw".to_owned());
    let bootstrap = Bootstrap {
        role_passwords: vec![password],
        admin: None,
    };
    windlass_db::migrate(&postgres.url(), &bootstrap)
        .await
        .unwrap();
    Db {
        postgres,
        config,
        _dir: dir,
    }
}

impl Db {
    fn pool(&self) -> Pool {
        let url = self.postgres.url();
        let (_, host) = url.rsplit_once('@').unwrap();
        Pool::new(&format!("postgres://windlass_wc:pw@{host}"), 4).unwrap()
    }
}

struct Replica {
    handle: Handle<Counting>,
    passes: Arc<AtomicU64>,
    readiness: Readiness,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn replica(db: &Db, holder: &str, period: Duration, hints: &Hints, slow: Duration) -> Replica {
    let (pool, shutdown, readiness) = (db.pool(), CancellationToken::new(), Readiness::new());
    let passes = Arc::new(AtomicU64::new(0));
    let coordinator = Coordinator {
        name: "wc",
        holder: holder.to_owned(),
        pool: pool.clone(),
        lease_ttl: Duration::from_secs(2),
        periods: Periods::steady(period),
        passes: vec![(
            hints.subscribe(Channel::Wc),
            Counting {
                pool,
                passes: Arc::clone(&passes),
                slow,
            },
        )],
    };
    let (handle, task) = coordinator.start(readiness.clone(), shutdown.clone());
    Replica {
        handle,
        passes,
        readiness,
        shutdown,
        task: tokio::spawn(task),
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_other_takes_over() {
    let db = database().await;
    let off = Hints::off();
    let first = replica(&db, "first", LONG, &off, Duration::ZERO);
    until("the first leader", || first.handle.status().leader).await;
    let second = replica(&db, "second", LONG, &off, Duration::ZERO);
    until("the follower to see who leads", || {
        second.handle.status().holder == "first"
    })
    .await;
    assert!(matches!(
        second.handle.run_now(()).await,
        Err(RunError::NotLeader(who)) if who.contains("first")
    ));
    assert!(first.handle.run_now(()).await.unwrap() >= 1);

    // Stopped: the leadership is given up, not left to expire.
    first.shutdown.cancel();
    first.task.await.unwrap().unwrap();
    until("the second leader", || second.handle.status().leader).await;
    assert!(second.handle.status().epoch > 1);

    // Gone without a word, and started again under the same name: it takes over from itself.
    let epoch = second.handle.status().epoch;
    second.task.abort();
    let again = replica(&db, "second", LONG, &off, Duration::ZERO);
    until("the restarted leader", || again.handle.status().leader).await;
    assert_eq!(again.handle.status().epoch, epoch + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_first_pass_hangs_becomes_late() {
    let metrics = telemetry::metrics_handle();
    let began = chrono::Utc::now().timestamp() as f64;
    let db = database().await;
    let _hangs = replica(&db, "only", LONG, &Hints::off(), LONG);
    let last_success = || {
        let text = metrics.render();
        let mut values = text.lines().filter_map(|line| line.rsplit_once(' '));
        let told = "windlass_tick_last_success_timestamp_seconds";
        let found = values.find(|(series, _)| series.starts_with(told));
        found.map_or(0.0, |(_, value)| value.parse::<f64>().unwrap())
    };
    until("the time from which it is late", || last_success() >= began).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_over_postgresql_make_passes_and_a_storm_makes_few() {
    let db = database().await;
    let hints = Hints::new(None, &db.pool()).unwrap();
    hinted(&db, &hints).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_over_redis_make_passes_and_a_storm_makes_few() {
    let db = database().await;
    let dir = tempfile::tempdir().unwrap();
    let config = redis::Config {
        dir: dir.path().to_owned(),
        port: free_port().unwrap(),
        die_with_parent: true,
    };
    let redis = Redis::start(&config).await.unwrap();
    let hints = Hints::new(Some(&redis.url()), &db.pool()).unwrap();
    hinted(&db, &hints).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_keeps_nobody_waiting_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = redis::Config {
        dir: dir.path().to_owned(),
        port: free_port().unwrap(),
        die_with_parent: true,
    };
    let url = format!("redis://127.0.0.1:{}", config.port);
    let unused = Pool::new("postgres://nobody@127.0.0.1:1/none", 1).unwrap();
    let hints = Hints::new(Some(&url), &unused).unwrap();
    // It takes connections and never answers.
    let hole = std::net::TcpListener::bind(("127.0.0.1", config.port)).unwrap();
    let began = Instant::now();
    for _ in 0..1_000 {
        hints.publish(Channel::Wc);
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(hole);

    let redis = Redis::start(&config).await.unwrap();
    let waker = hints.subscribe(Channel::Wc);
    let woken = async || {
        let hint = tokio::time::timeout(Duration::from_secs(60), waker.hint());
        hint.await.expect("a hint");
    };
    // Listening wakes by itself; what comes after that is a hint.
    woken().await;
    hints.publish(Channel::Wc);
    woken().await;
    // A connection that was good is not any more: the first hint on a new one counts.
    redis.stop().await;
    let _redis = Redis::start(&config).await.unwrap();
    woken().await;
    hints.publish(Channel::Wc);
    woken().await;
}

async fn hinted(db: &Db, hints: &Hints) {
    let slow = Duration::from_millis(300);
    let replica = replica(db, "only", LONG, hints, slow);
    let passes = || replica.passes.load(Ordering::SeqCst);
    // Whether it listens already nobody knows, so the first hint may need repeating.
    until("the first pass", || passes() >= 1).await;
    tokio::time::sleep(2 * slow).await;
    let (before, began) = (passes(), Instant::now());
    while passes() == before {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no hint made a pass"
        );
        hints.publish(Channel::Wc);
        tokio::time::sleep(2 * slow).await;
    }

    tokio::time::sleep(2 * slow).await;
    let before = passes();
    for _ in 0..50 {
        hints.publish(Channel::Wc);
    }
    until("a hinted pass", || passes() > before).await;
    // All that came while a pass was being made is one more pass; the storm itself may outlast the first.
    tokio::time::sleep(4 * slow).await;
    let after = passes() - before;
    assert!((1..=4).contains(&after), "{after} passes for a storm");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_told_and_survived() {
    let mut db = database().await;
    let replica = replica(
        &db,
        "only",
        Duration::from_millis(100),
        &Hints::off(),
        Duration::ZERO,
    );
    until("a leader", || replica.handle.status().leader).await;
    until("readiness", || replica.readiness.report().ready).await;

    db.postgres.stop().await;
    until("unreadiness", || !replica.readiness.report().ready).await;
    assert!(!replica.handle.status().last_error.is_empty());

    db.postgres = Postgres::start(&db.config).await.unwrap();
    until("readiness again", || replica.readiness.report().ready).await;
    let before = replica.passes.load(Ordering::SeqCst);
    until("passes again", || {
        replica.passes.load(Ordering::SeqCst) > before + 2
    })
    .await;
    assert!(replica.handle.status().leader);
}

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
        lease_ttl: Duration::from_millis(900),
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

/// Counts its passes, each of which goes on until it is let through.
struct Gated {
    passes: Arc<AtomicU64>,
    gate: Arc<Semaphore>,
}

impl Pass for Gated {
    type Request = ();
    type Report = u64;

    async fn pass(&mut self, _lease: &Lease, (): ()) -> Result<Verdict<u64>, PassError> {
        let pass = self.passes.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.acquire().await.unwrap().forget();
        Ok(Verdict {
            report: pass,
            active: false,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_hints_during_a_pass_is_one_more_pass() {
    let db = database().await;
    let (passes, gate) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let wakers = Hints::off().subscribe_each(Channel::Wc, 1);
    let bell = wakers[0].bell();
    let pass = |waker| {
        let gated = Gated {
            passes: Arc::clone(&passes),
            gate: Arc::clone(&gate),
        };
        (waker, gated)
    };
    let coordinator = Coordinator {
        name: "wc",
        holder: "only".to_owned(),
        pool: db.pool(),
        lease_ttl: Duration::from_secs(60),
        periods: Periods::steady(LONG),
        passes: wakers.into_iter().map(pass).collect(),
    };
    let shutdown = CancellationToken::new();
    let (handle, task) = coordinator.start(Readiness::new(), shutdown.clone());
    tokio::spawn(task);
    let made = || passes.load(Ordering::SeqCst);
    until("the first pass", || made() == 1).await;
    for _ in 0..500 {
        bell.notify_one();
    }
    gate.add_permits(1);
    until("the pass that the storm asked for", || made() == 2).await;
    // Had the storm left a third one, it would come before or after this request's, and be counted.
    gate.add_permits(100);
    assert_eq!(handle.run_led(|| ()).await.unwrap(), [3]);
    assert_eq!(handle.run_led(|| ()).await.unwrap(), [4]);
    shutdown.cancel();
}

/// Fails a few times, ringing each time for another pass.
struct Failing {
    failures: u64,
    passes: Arc<AtomicU64>,
    bell: Arc<Notify>,
}

impl Pass for Failing {
    type Request = ();
    type Report = u64;

    async fn pass(&mut self, _lease: &Lease, (): ()) -> Result<Verdict<u64>, PassError> {
        let pass = self.passes.fetch_add(1, Ordering::SeqCst) + 1;
        if pass <= self.failures {
            self.bell.notify_one();
            return Err(PassError::Unavailable("on purpose".to_owned()));
        }
        Ok(Verdict {
            report: pass,
            active: false,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_waits_until_the_backoff_is_over_and_is_not_lost() {
    let db = database().await;
    let passes = Arc::new(AtomicU64::new(0));
    let waker = Waker::never();
    let failing = Failing {
        failures: 4,
        passes: Arc::clone(&passes),
        bell: waker.bell(),
    };
    let coordinator = Coordinator {
        name: "wc",
        holder: "only".to_owned(),
        pool: db.pool(),
        lease_ttl: Duration::from_secs(60),
        periods: Periods::steady(LONG),
        passes: vec![(waker, failing)],
    };
    let shutdown = CancellationToken::new();
    let (_handle, task) = coordinator.start(Readiness::new(), shutdown.clone());
    let began = Instant::now();
    tokio::spawn(task);
    let made = || passes.load(Ordering::SeqCst);
    until("a pass that goes well", || made() > 4).await;
    // 200, 400, 800 and 1600 ms.
    assert!(began.elapsed() >= Duration::from_secs(3));
    until("the pass that was hinted", || made() > 5).await;
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nudge_makes_a_pass_and_does_not_keep_the_loop_active() {
    let db = database().await;
    let passes = Arc::new(AtomicU64::new(0));
    let waker = Waker::never();
    let (nudge, bell) = (waker.nudge(), waker.bell());
    let counting = Counting {
        pool: db.pool(),
        passes: Arc::clone(&passes),
        slow: Duration::ZERO,
    };
    let coordinator = Coordinator {
        name: "wc",
        holder: "only".to_owned(),
        pool: db.pool(),
        lease_ttl: Duration::from_secs(60),
        periods: Periods {
            active: Duration::from_millis(10),
            idle: LONG,
            active_for: Duration::from_secs(2),
        },
        passes: vec![(waker, counting)],
    };
    let shutdown = CancellationToken::new();
    let (handle, task) = coordinator.start(Readiness::new(), shutdown.clone());
    tokio::spawn(task);
    let made = || passes.load(Ordering::SeqCst);
    until("passes", || made() > 1).await;
    until("idleness", || !handle.status().active).await;
    // The second one is made after the first has been accounted for.
    for _ in 0..2 {
        let before = made();
        nudge.notify_one();
        until("a nudged pass", || made() > before).await;
    }
    assert!(!handle.status().active);
    let before = made();
    bell.notify_one();
    until("passes after a hint", || made() > before + 2).await;
    shutdown.cancel();
}
