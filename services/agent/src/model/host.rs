//! The model itself: what is known of the host, without I/O and clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use windlass_proto::v1;

use super::ledger::{Delta, Ledger, MAX_REMOVED, Position};

/// What an entry is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostKey {
    /// A container, by name.
    Container(String),
    /// A volume, by name.
    Volume(String),
    /// The jobs of a workspace.
    Jobs(Uuid),
}

/// What is known.
#[derive(Debug, Clone, PartialEq)]
pub enum HostEntry {
    /// A container.
    Container(v1::Container),
    /// A volume.
    Volume(v1::Volume),
    /// The running job of a workspace and its last finished one: one of them, or both.
    Jobs(Vec<v1::Job>),
}

/// What a full list of the engine found, or a closer look at single names (`None`: not there).
pub type Found = BTreeMap<HostKey, Option<Arc<HostEntry>>>;

/// Containers, volumes and jobs of the host.
#[derive(Debug, Clone)]
pub struct HostModel {
    ledger: Ledger<HostKey, HostEntry>,
}

impl HostModel {
    /// Nothing known; the incarnation is random.
    pub fn new(incarnation: Uuid) -> Self {
        Self {
            ledger: Ledger::new(incarnation, MAX_REMOVED),
        }
    }

    /// What is known of one thing.
    pub fn get(&self, key: &HostKey) -> Option<&Arc<HostEntry>> {
        self.ledger.get(key)
    }

    /// Everything known.
    pub fn iter(&self) -> impl Iterator<Item = (&HostKey, &Arc<HostEntry>)> {
        self.ledger.iter()
    }

    /// These things were looked at; returns those that had changed.
    pub fn looked_at(&mut self, found: Found) -> Vec<HostKey> {
        let mut changed = Vec::new();
        for (key, entry) in found {
            let differs = match entry {
                Some(entry) => self.ledger.set(key.clone(), entry),
                None => self.ledger.remove(&key),
            };
            if differs {
                changed.push(key);
            }
        }
        changed
    }

    /// These are all containers and volumes there are; returns what had changed.
    pub fn listed(&mut self, found: Found) -> Vec<HostKey> {
        let present = found.into_iter().filter_map(|(k, entry)| Some((k, entry?)));
        self.ledger.replace(
            |key| match key {
                HostKey::Container(_) | HostKey::Volume(_) => true,
                HostKey::Jobs(_) => false,
            },
            present.collect(),
        )
    }

    /// These are all jobs there are; returns what had changed.
    pub fn all_jobs(&mut self, jobs: BTreeMap<Uuid, Vec<v1::Job>>) -> Vec<HostKey> {
        let entry = |(id, jobs)| (HostKey::Jobs(id), Arc::new(HostEntry::Jobs(jobs)));
        self.ledger.replace(
            |key| matches!(key, HostKey::Jobs(_)),
            jobs.into_iter().map(entry).collect(),
        )
    }

    /// What changed after a position.
    pub fn since(&self, position: Option<Position>) -> Delta<HostKey, HostEntry> {
        self.ledger.since(position)
    }
}
