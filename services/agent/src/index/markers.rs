//! Bodies of markers, read once per key and etag.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_archive::layout::{self, ParsedKey};
use windlass_archive::marker::MAX_MARKER_BYTES;
use windlass_archive::{ArchiveMarker, RestoreMarker, Store, StoreError, StoreErrorKind};
use windlass_proto::v1;

/// A marker as read.
#[derive(Debug, Clone)]
pub(super) enum Marker {
    Archive(Arc<ArchiveMarker>),
    Restore(Arc<RestoreMarker>),
    /// Damaged, or of a version we do not know.
    Unreadable,
}

/// The markers read so far, by key, with the etag they had.
#[derive(Debug, Default)]
pub(super) struct Markers {
    cache: Mutex<HashMap<String, (String, Marker)>>,
}

impl Markers {
    /// The marker at `key`; `None` if it is gone.
    pub(super) async fn read(
        &self,
        store: &Store,
        key: &str,
        etag: &str,
    ) -> Result<Option<Marker>, StoreError> {
        let cached = self.lock().get(key).cloned();
        if let Some((known, marker)) = cached
            && known == etag
            && !etag.is_empty()
        {
            return Ok(Some(marker));
        }
        let bytes = match store.get_small(key, MAX_MARKER_BYTES).await {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == StoreErrorKind::NotFound => return Ok(None),
            // Larger than any marker.
            Err(e) if e.kind() == StoreErrorKind::Invalid => {
                tracing::warn!(key, "not a marker: {e}");
                return Ok(Some(Marker::Unreadable));
            }
            Err(e) => return Err(e),
        };
        let marker = match parse(store.prefix(), key, &bytes) {
            Ok(marker) => marker,
            Err(why) => {
                tracing::warn!(
                    key,
                    "a marker that cannot be read: its archive does not count: {why}"
                );
                Marker::Unreadable
            }
        };
        self.lock()
            .insert(key.to_owned(), (etag.to_owned(), marker.clone()));
        Ok(Some(marker))
    }

    /// What the marker of the archive at `key` says of its workspace, as it was last read.
    pub(super) fn label(&self, key: &str) -> v1::WorkspaceLabel {
        let said = |name: &str, marker: &ArchiveMarker| {
            marker.workspace.get(name).cloned().unwrap_or_default()
        };
        match self.lock().get(&layout::marker_key(key)) {
            Some((_, Marker::Archive(marker))) => v1::WorkspaceLabel {
                name: said("name", marker),
                owner: said("owner", marker),
                image: said("image", marker),
            },
            Some((_, Marker::Restore(_) | Marker::Unreadable)) | None => {
                v1::WorkspaceLabel::default()
            }
        }
    }

    pub(super) fn forget_all_but(&self, keys: &HashSet<&str>) {
        self.lock().retain(|key, _| keys.contains(key.as_str()));
    }

    // Every change is one insert or remove.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, Marker)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(prefix: &str, key: &str, bytes: &[u8]) -> Result<Marker, String> {
    match layout::parse_key(prefix, key) {
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
