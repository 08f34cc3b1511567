//! When the next pass is made: storms, backoff, nudges.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use windlass_coordinator::{Channel, Hints, Lease, Pass, PassError, Periods, Verdict, Waker};

use crate::common::{Counting, LONG, alone, database, until};

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
    let passes_of: Vec<_> = wakers.into_iter().map(pass).collect();
    let (handle, shutdown) = alone(&db, Periods::steady(LONG), passes_of);
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
    let began = Instant::now();
    let (_handle, shutdown) = alone(&db, Periods::steady(LONG), vec![(waker, failing)]);
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
    let periods = Periods {
        active: Duration::from_millis(10),
        idle: LONG,
        active_for: Duration::from_secs(10),
    };
    let (handle, shutdown) = alone(&db, periods, vec![(waker, counting)]);
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

/// Each of its passes takes a while and rings for another.
struct Ringing {
    passes: Arc<AtomicU64>,
    bell: Arc<Notify>,
}

const A_WHILE: Duration = Duration::from_millis(20);

impl Pass for Ringing {
    type Request = ();
    type Report = ();

    async fn pass(&mut self, _lease: &Lease, (): ()) -> Result<Verdict<()>, PassError> {
        self.passes.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(A_WHILE).await;
        self.bell.notify_one();
        Ok(Verdict {
            report: (),
            active: false,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_that_never_end_leave_time_for_others_and_none_is_lost() {
    const PASSES: u32 = 10;
    let db = database().await;
    let passes = Arc::new(AtomicU64::new(0));
    let waker = Waker::never();
    let ringing = Ringing {
        passes: Arc::clone(&passes),
        bell: waker.bell(),
    };
    let began = Instant::now();
    let (handle, shutdown) = alone(&db, Periods::steady(LONG), vec![(waker, ringing)]);
    let made = || passes.load(Ordering::SeqCst);
    until("passes", || made() > u64::from(PASSES)).await;
    // A fifth of the time; and the first one came at once.
    assert!(began.elapsed() >= PASSES * A_WHILE * 4);
    // Who asks does not wait for the rest to be over, nor a stop.
    handle.run_led(|| ()).await.unwrap();
    shutdown.cancel();
}
