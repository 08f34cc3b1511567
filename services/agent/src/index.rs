//! What the archive store holds, in memory: complete archives, completed restores, loose objects.
//!
//! The store is listed in full at start and every resync; marker bodies are read once per (key, etag).
//! This agent's own jobs change the index as they go. Invariants: a list is used whole or not at all; a
//! change made while a list was under way is not lost to that list; what could not be refreshed for
//! three resyncs is not told any more.

mod refresh;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use windlass_archive::layout;
use windlass_archive::store::ObjectEntry;
use windlass_archive::{ArchiveMarker, RestoreMarker, Store};
use windlass_proto::{convert, v1};

use crate::error::{Failure, Reason};
use refresh::MarkerCache;

/// Lists older than so many resyncs are not told.
const TOO_OLD: u32 = 3;

/// What the store held when it was last listed, with this agent's changes since.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Complete archives by the key of their data.
    pub archives: BTreeMap<String, v1::ArchiveInfo>,
    /// Completed restores by the key of their marker.
    pub restores: BTreeMap<String, v1::RestoreInfo>,
    /// Objects that belong to neither, by key.
    pub loose: BTreeMap<String, ObjectEntry>,
    /// When the last full list was complete.
    pub list_time: DateTime<Utc>,
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
    cache: Mutex<MarkerCache>,
    /// One list at a time.
    listing: tokio::sync::Mutex<()>,
    /// Lists begun.
    begun: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    snapshot: Option<(Arc<Snapshot>, Instant)>,
    error: Option<String>,
    /// Changes while a list is under way.
    changes: Option<Vec<Change>>,
}

#[derive(Debug, Clone)]
enum Change {
    Archive(Box<v1::ArchiveInfo>),
    Restore(v1::RestoreInfo),
    Deleted(String),
}

impl Index {
    /// An index that knows nothing yet.
    pub fn new(store: Store, resync: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                resync,
                state: Mutex::default(),
                cache: Mutex::default(),
                listing: tokio::sync::Mutex::default(),
                begun: AtomicU64::new(0),
            }),
        }
    }

    /// What the store holds.
    ///
    /// # Errors
    /// STORE_UNAVAILABLE before the first list succeeded, and when the last success is too old.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>, Failure> {
        let state = self.lock();
        let why = state.error.as_deref().unwrap_or("no list is complete yet");
        match &state.snapshot {
            None => Err(unavailable(format!(
                "the archive store was not listed yet: {why}"
            ))),
            Some((_, at)) if at.elapsed() > self.inner.resync * TOO_OLD => {
                Err(unavailable(format!(
                    "the archive store was last listed {} s ago: {why}",
                    at.elapsed().as_secs()
                )))
            }
            Some((snapshot, _)) => Ok(snapshot.clone()),
        }
    }

    /// When the store was last listed in full.
    pub fn list_time(&self) -> Option<DateTime<Utc>> {
        self.lock().snapshot.as_ref().map(|(s, _)| s.list_time)
    }

    /// Why the last list failed, if it did.
    pub fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// A job of this agent completed an archive.
    pub fn archived(&self, marker: &ArchiveMarker) {
        let store = &self.inner.store;
        let key = layout::data_key(store.prefix(), marker.workspace_id, marker.archive_op_id);
        self.change(Change::Archive(Box::new(archive_info(key, marker))));
    }

    /// A job of this agent completed a restore.
    pub fn restored(&self, workspace: uuid::Uuid, marker: &RestoreMarker) {
        let key = layout::restore_marker_key(self.inner.store.prefix(), workspace, marker.op_id);
        self.change(Change::Restore(restore_info(key, workspace, marker)));
    }

    /// This agent deleted an object.
    pub fn deleted(&self, key: &str) {
        self.change(Change::Deleted(key.to_owned()));
    }

    fn change(&self, change: Change) {
        let mut state = self.lock();
        if let Some(changes) = &mut state.changes {
            changes.push(change.clone());
        }
        if let Some((snapshot, _)) = &mut state.snapshot {
            Arc::make_mut(snapshot).apply(change);
        }
    }

    // Every change leaves a whole state behind, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Archive(archive) => {
                self.loose.remove(&archive.key);
                self.loose.remove(&layout::marker_key(&archive.key));
                self.archives.insert(archive.key.clone(), *archive);
            }
            Change::Restore(restore) => {
                self.loose.remove(&restore.key);
                self.restores.insert(restore.key.clone(), restore);
            }
            Change::Deleted(key) => {
                self.loose.remove(&key);
                self.restores.remove(&key);
                let data = key.strip_suffix(layout::MARKER_SUFFIX).unwrap_or(&key);
                let Some(archive) = self.archives.remove(data) else {
                    return;
                };
                if data != key {
                    // Its data stays behind, belonging to nothing.
                    let left = ObjectEntry {
                        key: data.to_owned(),
                        size: archive.bytes,
                        etag: String::new(),
                        last_modified: archive
                            .create_time
                            .and_then(|t| convert::time("create_time", &t).ok())
                            .unwrap_or_default(),
                    };
                    self.loose.insert(data.to_owned(), left);
                }
            }
        }
    }
}

fn unavailable(message: String) -> Failure {
    Failure::new(Reason::StoreUnavailable, message)
}

pub(crate) fn archive_info(key: String, marker: &ArchiveMarker) -> v1::ArchiveInfo {
    v1::ArchiveInfo {
        key,
        workspace_id: marker.workspace_id.to_string(),
        archive_op_id: marker.archive_op_id.to_string(),
        bytes: marker.size,
        uncompressed_bytes: marker.disk_size,
        entries: marker.entry_count,
        sha256: marker.sha256.clone(),
        create_time: Some(convert::timestamp(marker.finished_at)),
        volume_id: marker.volume_id.map(|v| v.to_string()).unwrap_or_default(),
        skipped_sockets: marker.skipped_sockets,
        crash_consistent: marker.crash_consistent,
        changed_files: marker.changed_files,
    }
}

fn restore_info(key: String, workspace: uuid::Uuid, marker: &RestoreMarker) -> v1::RestoreInfo {
    v1::RestoreInfo {
        workspace_id: workspace.to_string(),
        op_id: marker.op_id.to_string(),
        archive_key: marker.archive_key.clone(),
        key,
    }
}
