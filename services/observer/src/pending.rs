//! Workspaces that are to be decided about again although nothing new is told of them: their unit was not
//! observed when they changed, or what was decided could not be written.

use std::collections::{HashMap, HashSet};

use windlass_domain::{HostId, WorkspaceId};

/// What is to be made up for.
#[derive(Debug, Default)]
pub struct Pending {
    unwritten: HashSet<WorkspaceId>,
    unseen: HashMap<HostId, HashSet<WorkspaceId>>,
    unlisted: HashSet<WorkspaceId>,
}

impl Pending {
    /// This is about to be written.
    pub fn write(&mut self, ids: impl IntoIterator<Item = WorkspaceId>) {
        self.unwritten.extend(ids);
    }

    /// Everything is written.
    pub fn written(&mut self) {
        self.unwritten.clear();
    }

    /// Its host was not observed.
    pub fn unseen(&mut self, host: HostId, id: WorkspaceId) {
        self.unseen.entry(host).or_default().insert(id);
    }

    /// The store was not observed.
    pub fn unlisted(&mut self, id: WorkspaceId) {
        self.unlisted.insert(id);
    }

    /// What can be made up for, now that these hosts, and perhaps the store, are observed.
    pub fn due(&mut self, hosts: &HashSet<HostId>, store: bool) -> HashSet<WorkspaceId> {
        let mut due = self.unwritten.clone();
        for host in hosts {
            due.extend(self.unseen.remove(host).unwrap_or_default());
        }
        if store {
            due.extend(std::mem::take(&mut self.unlisted));
        }
        due
    }
}
