//! Whether this process can do its work, and if not, why: what /readyz answers, and the health of `readiness`.
//!
//! Each component reports under its own name as often as it likes; nothing has to be polled. Before a
//! component first reports it is not known, so declare it at start with [`Readiness::expect`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// What one component last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Whether it can work.
    pub ready: bool,
    /// Why not, or what it is doing; for people.
    pub reason: String,
}

/// The answer of /readyz.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// True when every check is.
    pub ready: bool,
    /// The checks by name.
    pub checks: BTreeMap<String, Check>,
}

/// Registry of readiness checks; clones share it.
#[derive(Debug, Clone)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<String, Check>>>,
    ready: watch::Sender<bool>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            checks: Arc::default(),
            ready: watch::Sender::new(true),
        }
    }
}

impl Readiness {
    /// An empty registry, which is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether every check is ready, now and whenever that changes.
    pub fn follow(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Declares a component that has not reported yet: not ready.
    pub fn expect(&self, name: &str) {
        self.set(name, false, "starting");
    }

    /// Stores what the component `name` says; a change is logged.
    pub fn set(&self, name: &str, ready: bool, reason: impl Into<String>) {
        let check = Check {
            ready,
            reason: reason.into(),
        };
        let before = {
            let mut checks = self.lock();
            let before = checks.insert(name.to_owned(), check.clone());
            // Under the lock: who changes a check last also tells last what came of it.
            let all = checks.values().all(|check| check.ready);
            self.ready
                .send_if_modified(|ready| std::mem::replace(ready, all) != all);
            before
        };
        if before.is_none_or(|before| before.ready != ready) {
            if ready {
                tracing::info!(check = name, "ready: {}", check.reason);
            } else {
                tracing::warn!(check = name, "not ready: {}", check.reason);
            }
        }
        metrics::gauge!("windlass_ready", "check" => name.to_owned())
            .set(f64::from(u8::from(ready)));
    }

    /// Everything at once.
    pub fn report(&self) -> Report {
        let checks = self.lock().clone();
        Report {
            ready: checks.values().all(|check| check.ready),
            checks,
        }
    }

    // A panic while holding the lock cannot leave the map half-written: insert and clone are all.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Check>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_that_is_not_ready_makes_the_process_not_ready() {
        let readiness = Readiness::new();
        assert!(readiness.report().ready);
        readiness.expect("postgres");
        assert!(!readiness.report().ready);
        readiness.set("postgres", true, "connected");
        readiness.set("redis", true, "connected");
        assert!(readiness.report().ready);
        readiness.set("postgres", false, "connection refused");
        let report = readiness.report();
        assert!(!report.ready);
        assert_eq!(report.checks["postgres"].reason, "connection refused");
        assert!(report.checks["redis"].ready);
    }

    #[test]
    fn who_follows_is_told_of_changes_of_the_whole_only() {
        let readiness = Readiness::new();
        let mut followed = readiness.follow();
        assert!(*followed.borrow_and_update());
        readiness.set("postgres", true, "connected");
        assert!(!followed.has_changed().unwrap());

        readiness.set("postgres", false, "connection refused");
        assert!(followed.has_changed().unwrap());
        assert!(!*followed.borrow_and_update());
        readiness.set("redis", false, "connection refused");
        readiness.set("postgres", true, "connected");
        assert!(!followed.has_changed().unwrap());

        readiness.set("redis", true, "connected");
        assert!(*followed.borrow_and_update());
    }
}
