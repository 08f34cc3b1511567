//! What the model may be wrong about: names that events told of, jobs that moved, lists that are wanted.
//!
//! Invariant: what is marked while a read is under way is still marked after it, so an older read
//! stands until the next read at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::docker::EngineEvent;
use crate::model::HostKey;

/// Names that are remembered one by one; more of them want a full list anyway.
const MAX_NAMES: usize = 10_000;

/// Why a full list is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The agent started, or the last list failed.
    Start,
    /// The resync interval is over.
    Resync,
    /// Events may have been lost.
    Gap,
    /// Too much changed to look at one by one.
    Many,
    /// Something could not be looked at.
    Retry,
    /// Somebody wants to know for sure.
    Prove,
}

impl Why {
    /// Its name in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Resync => "resync",
            Self::Gap => "gap",
            Self::Many => "many",
            Self::Retry => "retry",
            Self::Prove => "prove",
        }
    }
}

/// The last event of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Such as `container/start`.
    pub kind: String,
    /// The engine's id of a container that was created.
    pub created: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// What was marked since the last taking.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// Containers and volumes, with the last event that told of each.
    pub names: BTreeMap<HostKey, Option<Cause>>,
    /// Workspaces whose jobs moved.
    pub jobs: BTreeSet<Uuid>,
    /// A full list is wanted.
    pub list: Option<Why>,
    /// Asks for a full list so far.
    pub asks: u64,
    /// One of those since asks for a half of it, so that another ask may come at once.
    pub halves: bool,
}

/// The marks; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Dirty {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    marks: Mutex<Taken>,
    marked: Notify,
}

impl Dirty {
    /// An event told of these names.
    pub fn event(&self, event: &EngineEvent) {
        let cause = Cause {
            kind: event.kind.clone(),
            created: event.created.clone(),
            at: event.at,
        };
        let mut marks = self.lock();
        for key in &event.things {
            marks.names.insert(key.clone(), Some(cause.clone()));
        }
        if marks.names.len() > MAX_NAMES {
            marks.names.clear();
            marks.list = Some(Why::Many);
        }
        drop(marks);
        self.inner.marked.notify_one();
    }

    /// A job of the workspace moved.
    pub fn job(&self, workspace: Uuid) {
        self.lock().jobs.insert(workspace);
        self.inner.marked.notify_one();
    }

    /// A full list is wanted.
    pub fn list(&self, why: Why) {
        self.lock().list = Some(why);
        self.inner.marked.notify_one();
    }

    /// Somebody waits for a full list that begins from now on, or for a half of it; returns the number of the ask.
    pub fn ask(&self, half: bool) -> u64 {
        let mut marks = self.lock();
        marks.asks += 1;
        marks.halves |= half;
        let ask = marks.asks;
        drop(marks);
        self.inner.marked.notify_one();
        ask
    }

    /// Asks for a full list so far.
    pub fn asks(&self) -> u64 {
        self.lock().asks
    }

    /// Waits until something is marked.
    pub async fn marked(&self) {
        self.inner.marked.notified().await;
    }

    /// Takes all marks.
    pub fn take(&self) -> Taken {
        let mut marks = self.lock();
        let asks = marks.asks;
        std::mem::replace(
            &mut *marks,
            Taken {
                asks,
                ..Taken::default()
            },
        )
    }

    /// Marks again what could not be read. Wakes nobody.
    pub fn put_back(&self, names: BTreeMap<HostKey, Option<Cause>>) {
        let mut marks = self.lock();
        for (key, cause) in names {
            marks.names.entry(key).or_insert(cause);
        }
        if marks.names.len() > MAX_NAMES {
            marks.names.clear();
        }
    }

    // Every change leaves a whole state behind.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.inner
            .marks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_during_a_read_stays_marked() {
        let dirty = Dirty::default();
        let event = |name: &str, kind: &str| EngineEvent {
            kind: kind.to_owned(),
            things: vec![HostKey::Container(name.to_owned())],
            created: None,
            at: Utc::now(),
        };
        dirty.event(&event("a", "container/create"));
        dirty.event(&event("a", "container/start"));
        dirty.event(&event("b", "container/start"));
        let first = dirty.ask(false);
        let taken = dirty.take();
        assert_eq!((taken.names.len(), taken.asks), (2, first));
        let a = &taken.names[&HostKey::Container("a".to_owned())];
        assert_eq!(a.as_ref().unwrap().kind, "container/start");

        dirty.event(&event("a", "container/die"));
        assert_eq!(dirty.ask(false), first + 1);
        dirty.put_back(taken.names);
        let taken = dirty.take();
        let a = &taken.names[&HostKey::Container("a".to_owned())];
        assert_eq!(a.as_ref().unwrap().kind, "container/die");
        assert_eq!((taken.names.len(), taken.asks), (2, first + 1));
        assert!(dirty.take().names.is_empty());
    }

    #[test]
    fn a_flood_of_names_is_one_list() {
        let dirty = Dirty::default();
        for n in 0..=MAX_NAMES {
            dirty.event(&EngineEvent {
                kind: "volume/create".to_owned(),
                things: vec![HostKey::Volume(n.to_string())],
                created: None,
                at: Utc::now(),
            });
        }
        let taken = dirty.take();
        assert_eq!((taken.names.len(), taken.list), (0, Some(Why::Many)));
    }
}
