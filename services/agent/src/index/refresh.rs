//! Listing the store in full, and the loop that does it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use chrono::Utc;
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use windlass_archive::layout::{self, ParsedKey};
use windlass_archive::marker::MAX_MARKER_BYTES;
use windlass_archive::store::ObjectEntry;
use windlass_archive::{ArchiveMarker, RestoreMarker, StoreError, StoreErrorKind};
use windlass_proto::v1;
use windlass_service::Backoff;

use super::{Index, Snapshot, archive_info, restore_info};
use crate::error::Failure;

/// Markers read at once.
const PARALLEL: usize = 32;

/// Marker bodies by key, with the etag they had.
pub(super) type MarkerCache = HashMap<String, (String, Marker)>;

/// A marker as read.
#[derive(Debug, Clone)]
pub(super) enum Marker {
    Archive(Arc<ArchiveMarker>),
    Restore(Arc<RestoreMarker>),
    /// Damaged, or of a version we do not know.
    Unreadable,
}

impl Index {
    /// Lists until shutdown: at once, every resync, and with backoff while the store is away.
    pub async fn keep_fresh(self, shutdown: CancellationToken) {
        let mut failures = 0;
        loop {
            let refreshed = tokio::select! {
                () = shutdown.cancelled() => return,
                refreshed = self.refresh() => refreshed,
            };
            let pause = match refreshed {
                Ok(_) => {
                    failures = 0;
                    self.inner.resync
                }
                Err(failure) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!("the archive store cannot be listed: {failure}");
                    }
                    Backoff::WORK.after(failures).min(self.inner.resync)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Lists the store now. Calls that come while a list is waiting for its turn share it.
    ///
    /// # Errors
    /// When any part of it failed: the index is as before then.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, Failure> {
        let seen = self.inner.begun.load(Ordering::SeqCst);
        let _turn = self.inner.listing.lock().await;
        // A list that began after this call is as good as our own; one that failed is not.
        if self.inner.begun.load(Ordering::SeqCst) > seen
            && let (Ok(snapshot), None) = (self.snapshot(), self.error())
        {
            return Ok(snapshot);
        }
        self.inner.begun.fetch_add(1, Ordering::SeqCst);
        self.lock().changes = Some(Vec::new());
        let began = Instant::now();
        let listed = self.list().await;
        let mut state = self.lock();
        let changes = state.changes.take().unwrap_or_default();
        match listed {
            Ok(mut snapshot) => {
                for change in changes {
                    snapshot.apply(change);
                }
                metrics::gauge!("windlass_agent_archives").set(snapshot.archives.len() as f64);
                metrics::gauge!("windlass_agent_store_listed_timestamp_seconds")
                    .set(snapshot.list_time.timestamp_millis() as f64 / 1000.0);
                metrics::histogram!("windlass_agent_store_list_seconds")
                    .record(began.elapsed().as_secs_f64());
                let snapshot = Arc::new(snapshot);
                state.error = None;
                state.snapshot = Some((snapshot.clone(), Instant::now()));
                Ok(snapshot)
            }
            Err(error) => {
                state.error = Some(error.to_string());
                Err(error.into())
            }
        }
    }

    async fn list(&self) -> Result<Snapshot, StoreError> {
        let store = &self.inner.store;
        let entries = store.list(store.prefix()).await?;
        let mut objects: HashMap<String, ObjectEntry> = HashMap::with_capacity(entries.len());
        let mut markers = Vec::new();
        for entry in entries {
            match layout::parse_key(store.prefix(), &entry.key) {
                Some(ParsedKey::Marker { .. } | ParsedKey::RestoreMarker { .. }) => {
                    markers.push((entry.key.clone(), entry.etag.clone()));
                }
                Some(ParsedKey::Data { .. } | ParsedKey::Other { .. }) => {}
                None => continue,
            }
            objects.insert(entry.key.clone(), entry);
        }
        self.forget_all_but(&objects);
        let bodies: Vec<(String, Option<Marker>)> = stream::iter(markers)
            .map(|(key, etag)| async move {
                let marker = self.marker(&key, &etag).await?;
                Ok::<_, StoreError>((key, marker))
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;

        let mut snapshot = Snapshot::default();
        for (key, marker) in bodies {
            let Some(marker) = marker else {
                // Deleted since it was listed.
                objects.remove(&key);
                continue;
            };
            match marker {
                Marker::Archive(marker) => {
                    let data = key.strip_suffix(layout::MARKER_SUFFIX).unwrap_or(&key);
                    let complete = objects.get(data).is_some_and(|o| o.size == marker.size);
                    if complete {
                        objects.remove(data);
                        let data = data.to_owned();
                        objects.remove(&key);
                        let info = archive_info(data.clone(), &marker);
                        snapshot.archives.insert(data, info);
                    }
                }
                Marker::Restore(marker) => {
                    if let Some(ParsedKey::RestoreMarker { workspace_id, .. }) =
                        layout::parse_key(store.prefix(), &key)
                    {
                        objects.remove(&key);
                        let info = restore_info(key.clone(), workspace_id, &marker);
                        snapshot.restores.insert(key, info);
                    }
                }
                Marker::Unreadable => {}
            }
        }
        snapshot.loose = objects.into_iter().collect();
        snapshot.list_time = Utc::now();
        Ok(snapshot)
    }

    /// The marker at `key`; `None` if it is gone.
    async fn marker(&self, key: &str, etag: &str) -> Result<Option<Marker>, StoreError> {
        let cached = self.with_cache(|cache| {
            let hit = cache.get(key).filter(|(known, _)| known == etag);
            hit.map(|(_, marker)| marker.clone())
        });
        if cached.is_some() && !etag.is_empty() {
            return Ok(cached);
        }
        let bytes = match self.inner.store.get_small(key, MAX_MARKER_BYTES).await {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == StoreErrorKind::NotFound => return Ok(None),
            // Larger than any marker.
            Err(e) if e.kind() == StoreErrorKind::Invalid => {
                tracing::warn!(key, "not a marker: {e}");
                return Ok(Some(Marker::Unreadable));
            }
            Err(e) => return Err(e),
        };
        let marker = match self.parse(key, &bytes) {
            Ok(marker) => marker,
            Err(why) => {
                tracing::warn!(
                    key,
                    "a marker that cannot be read: its archive does not count: {why}"
                );
                Marker::Unreadable
            }
        };
        self.with_cache(|cache| {
            cache.insert(key.to_owned(), (etag.to_owned(), marker.clone()));
        });
        Ok(Some(marker))
    }

    /// What the marker of the archive at `key` says of its workspace, as of the last full list.
    pub fn label(&self, key: &str) -> v1::WorkspaceLabel {
        let marker = layout::marker_key(key);
        let said = |name: &str, marker: &ArchiveMarker| {
            marker.workspace.get(name).cloned().unwrap_or_default()
        };
        self.with_cache(|cache| match cache.get(&marker) {
            Some((_, Marker::Archive(marker))) => v1::WorkspaceLabel {
                name: said("name", marker),
                owner: said("owner", marker),
                image: said("image", marker),
            },
            Some((_, Marker::Restore(_) | Marker::Unreadable)) | None => {
                v1::WorkspaceLabel::default()
            }
        })
    }

    fn parse(&self, key: &str, bytes: &[u8]) -> Result<Marker, String> {
        match layout::parse_key(self.inner.store.prefix(), key) {
            Some(ParsedKey::Marker {
                workspace_id,
                op_id,
            }) => {
                let marker = ArchiveMarker::parse(bytes).map_err(|e| e.to_string())?;
                if (marker.workspace_id, marker.archive_op_id) != (workspace_id, op_id) {
                    return Err("it is the marker of another archive".to_owned());
                }
                Ok(Marker::Archive(Arc::new(marker)))
            }
            Some(ParsedKey::RestoreMarker { op_id, .. }) => {
                let marker = RestoreMarker::parse(bytes).map_err(|e| e.to_string())?;
                if marker.op_id != op_id {
                    return Err("it is the marker of another restore".to_owned());
                }
                Ok(Marker::Restore(Arc::new(marker)))
            }
            Some(ParsedKey::Data { .. } | ParsedKey::Other { .. }) | None => {
                Err("its key is no marker's".to_owned())
            }
        }
    }

    fn forget_all_but(&self, objects: &HashMap<String, ObjectEntry>) {
        let listed: HashSet<&str> = objects.keys().map(String::as_str).collect();
        self.with_cache(|cache| cache.retain(|key, _| listed.contains(key.as_str())));
    }

    fn with_cache<T>(&self, use_it: impl FnOnce(&mut MarkerCache) -> T) -> T {
        let mut cache = self
            .inner
            .cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        use_it(&mut cache)
    }
}
