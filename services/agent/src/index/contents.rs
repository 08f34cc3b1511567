//! What the store holds, and how changes alter it.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;
use windlass_archive::layout::{self, ParsedKey};
use windlass_archive::store::ObjectEntry;
use windlass_archive::{ArchiveMarker, RestoreMarker};
use windlass_proto::{convert, v1};

use super::Listing;
use crate::model::{Delta, Ledger, MAX_REMOVED, Position};

/// What an entry is of, by the full key of its object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArchiveKey {
    /// A complete archive, by the key of its data.
    Archive(String),
    /// A completed restore, by the key of its marker.
    Restore(String),
}

/// What is known of it.
#[derive(Debug, Clone, PartialEq)]
pub enum ArchiveEntry {
    /// A complete archive.
    Archive(v1::ArchiveInfo),
    /// A completed restore.
    Restore(v1::RestoreInfo),
    /// This agent deleted it. Among its own changes only.
    Gone,
}

/// A change by this agent.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// An archive or a restore was completed.
    Made(Arc<ArchiveEntry>),
    /// An object was deleted.
    Deleted(String),
}

impl Change {
    /// What it means for archives and restores.
    pub(super) fn tells(&self, prefix: &str) -> Option<(ArchiveKey, Arc<ArchiveEntry>)> {
        match self {
            Self::Made(entry) => Some((key_of(entry)?, entry.clone())),
            Self::Deleted(key) => {
                let key = match layout::parse_key(prefix, key)? {
                    ParsedKey::Data { .. } | ParsedKey::Marker { .. } => {
                        ArchiveKey::Archive(data_of(key).to_owned())
                    }
                    ParsedKey::RestoreMarker { .. } => ArchiveKey::Restore(key.clone()),
                    ParsedKey::Other { .. } => return None,
                };
                Some((key, Arc::new(ArchiveEntry::Gone)))
            }
        }
    }
}

/// One list of the store.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: BTreeMap<ArchiveKey, Arc<ArchiveEntry>>,
    pub(super) loose: BTreeMap<String, ObjectEntry>,
}

impl Found {
    pub(super) fn add(&mut self, entry: ArchiveEntry) {
        if let Some(key) = key_of(&entry) {
            self.entries.insert(key, Arc::new(entry));
        }
    }

    pub(super) fn into_listing(self, list_time: DateTime<Utc>) -> Listing {
        Listing {
            entries: self.entries.into_values().collect(),
            loose: self.loose.into_values().collect(),
            list_time,
        }
    }
}

/// What the store holds in full.
#[derive(Debug)]
pub(super) struct Contents {
    ledger: Ledger<ArchiveKey, ArchiveEntry>,
    loose: BTreeMap<String, ObjectEntry>,
}

impl Contents {
    pub(super) fn new() -> Self {
        Self {
            ledger: Ledger::new(Uuid::new_v4(), MAX_REMOVED),
            loose: BTreeMap::new(),
        }
    }

    /// A full list, which did not see these changes for certain.
    pub(super) fn listed(&mut self, found: Found, changes: Vec<Change>) {
        self.ledger.replace(|_| true, found.entries);
        self.loose = found.loose;
        for change in changes {
            self.apply(change);
        }
    }

    /// How many archives there are.
    pub(super) fn archives(&self) -> usize {
        let is_archive = |key: &&ArchiveKey| matches!(key, ArchiveKey::Archive(_));
        self.ledger
            .iter()
            .map(|(key, _)| key)
            .filter(is_archive)
            .count()
    }

    pub(super) fn since(&self, position: Option<Position>) -> Delta<ArchiveKey, ArchiveEntry> {
        self.ledger.since(position)
    }

    pub(super) fn listing(&self, prefix: &str, list_time: DateTime<Utc>) -> Listing {
        let entries = self.ledger.iter().filter(|(key, _)| match key {
            ArchiveKey::Archive(key) | ArchiveKey::Restore(key) => key.starts_with(prefix),
        });
        let loose = self.loose.iter().filter(|(key, _)| key.starts_with(prefix));
        Listing {
            entries: entries.map(|(_, entry)| entry.clone()).collect(),
            loose: loose.map(|(_, object)| object.clone()).collect(),
            list_time,
        }
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Made(entry) => {
                let Some(key) = key_of(&entry) else { return };
                match &key {
                    ArchiveKey::Archive(data) => {
                        self.loose.remove(data);
                        self.loose.remove(&layout::marker_key(data));
                    }
                    ArchiveKey::Restore(marker) => {
                        self.loose.remove(marker);
                    }
                }
                self.ledger.set(key, entry);
            }
            Change::Deleted(key) => {
                self.loose.remove(&key);
                self.ledger.remove(&ArchiveKey::Restore(key.clone()));
                let data = data_of(&key);
                let archive = ArchiveKey::Archive(data.to_owned());
                let Some(entry) = self.ledger.get(&archive).cloned() else {
                    return;
                };
                self.ledger.remove(&archive);
                if let (ArchiveEntry::Archive(info), true) = (&*entry, data != key) {
                    // Its data stays behind, belonging to nothing.
                    let written = info.create_time.as_ref();
                    let written = written.and_then(|t| convert::time("create_time", t).ok());
                    let left = ObjectEntry {
                        key: data.to_owned(),
                        size: info.bytes,
                        etag: String::new(),
                        last_modified: written.unwrap_or_default(),
                    };
                    self.loose.insert(data.to_owned(), left);
                }
            }
        }
    }
}

fn key_of(entry: &ArchiveEntry) -> Option<ArchiveKey> {
    match entry {
        ArchiveEntry::Archive(archive) => Some(ArchiveKey::Archive(archive.key.clone())),
        ArchiveEntry::Restore(restore) => Some(ArchiveKey::Restore(restore.key.clone())),
        ArchiveEntry::Gone => None,
    }
}

/// The key of the data that a marker's key, or a data key, is about.
fn data_of(key: &str) -> &str {
    key.strip_suffix(layout::MARKER_SUFFIX).unwrap_or(key)
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

pub(super) fn restore_info(
    key: String,
    workspace: Uuid,
    marker: &RestoreMarker,
) -> v1::RestoreInfo {
    v1::RestoreInfo {
        workspace_id: workspace.to_string(),
        op_id: marker.op_id.to_string(),
        archive_key: marker.archive_key.clone(),
        key,
    }
}
