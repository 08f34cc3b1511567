//! What the archive store holds, in memory: complete archives, completed restores, loose objects.
//!
//! The store is listed in full only while somebody wants all of it told: at once, then every resync;
//! marker bodies are read once per (key, etag). This agent's own changes enter as they are made, and are
//! told on their own ([`own`]) to whoever has the rest from another agent of the same store: so of many
//! agents one lists it. Invariants: a list is used whole or not at all; a change made while a list was
//! under way is not lost to that list; what could not be refreshed for three resyncs is not told any more.

mod contents;
mod markers;
mod own;
mod refresh;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};
use windlass_archive::layout;
use windlass_archive::store::ObjectEntry;
use windlass_archive::{ArchiveMarker, RestoreMarker, Store};
use windlass_proto::v1;

use crate::error::{Failure, Reason};
use crate::model::{Delta, Position};
pub(crate) use contents::archive_info;
use contents::restore_info;
pub use contents::{ArchiveEntry, ArchiveKey};
use contents::{Change, Contents};
use markers::Markers;
use own::Own;

/// Lists older than so many resyncs are not told; after so many without a question there are no more.
const TOO_OLD: u32 = 3;
/// For how long questions wait for the first full list, from the first of them on.
const FIRST_LIST: Duration = Duration::from_secs(8);

/// A list for whoever asked.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Complete archives and completed restores, by key.
    pub entries: Vec<Arc<ArchiveEntry>>,
    /// Objects that belong to neither, by key.
    pub loose: Vec<ObjectEntry>,
    /// When the store was listed.
    pub list_time: DateTime<Utc>,
}

/// What a caller is told of the archives.
#[derive(Debug, Clone)]
pub struct Told {
    /// What changed since the position it named.
    pub delta: Delta<ArchiveKey, ArchiveEntry>,
    /// When this agent last listed the store in full.
    pub list_time: Option<DateTime<Utc>>,
}

/// The index; cheap to clone.
#[derive(Debug, Clone)]
pub struct Index {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    resync: Duration,
    state: Mutex<State>,
    markers: Markers,
    /// One full list at a time.
    listing: tokio::sync::Mutex<()>,
    /// Full lists begun.
    begun: AtomicU64,
    /// Full lists ended, well or not.
    ended: watch::Sender<u64>,
    /// Somebody wants all for the first time.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    full: Option<Full>,
    own: Own,
    interest: Option<Interest>,
    error: Option<String>,
    /// Changes while a full list is under way.
    changes: Option<Vec<Change>>,
}

/// What the store held when it was last listed in full, with this agent's changes since.
#[derive(Debug)]
struct Full {
    contents: Contents,
    list_time: DateTime<Utc>,
    at: Instant,
}

/// Somebody wants all of it told.
#[derive(Debug, Clone, Copy)]
struct Interest {
    since: Instant,
    last: Instant,
}

impl Index {
    /// An index that knows nothing yet.
    pub fn new(store: Store, resync: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                resync,
                state: Mutex::default(),
                markers: Markers::default(),
                listing: tokio::sync::Mutex::default(),
                begun: AtomicU64::new(0),
                ended: watch::Sender::default(),
                wanted: Notify::new(),
            }),
        }
    }

    /// What changed in the whole store after a position. The first question waits for a full list, `wait`
    /// or 8 s at most; from then on there are lists every resync.
    ///
    /// # Errors
    /// STORE_UNAVAILABLE before the first list succeeded, and when the last success is too old.
    pub async fn all_since(
        &self,
        position: Option<Position>,
        wait: Duration,
    ) -> Result<Told, Failure> {
        self.want_all(wait).await;
        self.with_full(|full| Told {
            delta: full.contents.since(position),
            list_time: Some(full.list_time),
        })
    }

    /// What this agent changed after a position. Costs no request.
    pub fn own_since(&self, position: Option<Position>) -> Told {
        let mut state = self.lock();
        let age = self.too_old();
        if let Some(limit) = Instant::now().checked_sub(age) {
            state.own.forget_before(limit, age / 4);
        }
        Told {
            delta: state.own.since(position),
            list_time: state.full.as_ref().map(|full| full.list_time),
        }
    }

    /// Everything in the store, as [`Index::all_since`].
    ///
    /// # Errors
    /// As [`Index::all_since`].
    pub async fn all(&self, wait: Duration) -> Result<Listing, Failure> {
        self.want_all(wait).await;
        self.with_full(|full| full.listing(""))
    }

    /// What the store holds under a prefix of full keys: from a full list that is kept up, or else by
    /// listing that prefix.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn under(&self, prefix: &str) -> Result<Listing, Failure> {
        let wanted = self.lock().interest.is_some_and(|i| self.is_alive(i));
        if wanted && let Ok(listing) = self.with_full(|full| full.listing(prefix)) {
            return Ok(listing);
        }
        self.list_under(prefix).await
    }

    /// What the marker of the archive at `key` says of its workspace, as it was last read.
    pub fn label(&self, key: &str) -> v1::WorkspaceLabel {
        self.inner.markers.label(key)
    }

    /// When the store was last listed in full.
    pub fn list_time(&self) -> Option<DateTime<Utc>> {
        self.lock().full.as_ref().map(|full| full.list_time)
    }

    /// Why the last list failed, if it did.
    pub fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// A job of this agent completed an archive.
    pub fn archived(&self, marker: &ArchiveMarker) {
        let store = &self.inner.store;
        let key = layout::data_key(store.prefix(), marker.workspace_id, marker.archive_op_id);
        let entry = ArchiveEntry::Archive(archive_info(key, marker));
        self.change(Change::Made(Arc::new(entry)));
    }

    /// A job of this agent completed a restore.
    pub fn restored(&self, workspace: uuid::Uuid, marker: &RestoreMarker) {
        let key = layout::restore_marker_key(self.inner.store.prefix(), workspace, marker.op_id);
        let entry = ArchiveEntry::Restore(restore_info(key, workspace, marker));
        self.change(Change::Made(Arc::new(entry)));
    }

    /// This agent deleted an object.
    pub fn deleted(&self, key: &str) {
        self.change(Change::Deleted(key.to_owned()));
    }

    fn change(&self, change: Change) {
        let mut state = self.lock();
        if let Some((key, entry)) = change.tells(self.inner.store.prefix()) {
            state.own.add(Instant::now(), key, entry);
        }
        if let Some(full) = &mut state.full {
            full.contents.apply(change.clone());
        }
        if let Some(changes) = &mut state.changes {
            changes.push(change);
        }
    }

    fn with_full<T>(&self, tell: impl FnOnce(&Full) -> T) -> Result<T, Failure> {
        let state = self.lock();
        let why = state.error.as_deref().unwrap_or("no list is complete yet");
        let unavailable = |message: String| Failure::new(Reason::StoreUnavailable, message);
        match &state.full {
            None => Err(unavailable(format!(
                "the archive store was not listed yet: {why}"
            ))),
            Some(full) if full.at.elapsed() > self.too_old() => Err(unavailable(format!(
                "the archive store was last listed {} s ago: {why}",
                full.at.elapsed().as_secs()
            ))),
            Some(full) => Ok(tell(full)),
        }
    }

    fn too_old(&self) -> Duration {
        self.inner.resync.saturating_mul(TOO_OLD)
    }

    fn is_alive(&self, interest: Interest) -> bool {
        interest.last.elapsed() <= self.too_old()
    }

    // Every change leaves a whole state behind, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Full {
    fn listing(&self, prefix: &str) -> Listing {
        self.contents.listing(prefix, self.list_time)
    }
}
