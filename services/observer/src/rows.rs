//! The rows, as far as deciding needs them, in memory.
//!
//! Each pass reads what changed since the last one. Invariant: what is here was read from the database, or
//! was committed to it by this leader after that; what could not be written is not here. With another epoch,
//! or when the database has lost transactions, everything is read anew.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use windlass_db::{
    DbError, Lease, Pool,
    read::{ObservedRow, ObservedTrace, WatchToken},
};
use windlass_domain::{Conditions, Epoch, HostId, WorkspaceId};
use windlass_service::trace;

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its host.
    pub host_id: HostId,
    /// Key of the archive that is, or last was, the home.
    pub archive_key: Option<Box<str>>,
    /// Key of the archive it is to be restored from.
    pub restore_key: Option<Box<str>>,
    /// What is stored as observed.
    pub conditions: Arc<Conditions>,
    /// The trace of the call that set its desired state; only kept where traces are told.
    pub trace: Option<Box<ObservedTrace>>,
}

/// The rows of one leadership.
#[derive(Debug, Default)]
pub struct Rows {
    epoch: Option<Epoch>,
    token: Option<WatchToken>,
    rows: HashMap<WorkspaceId, Row>,
    in_progress: HashSet<WorkspaceId>,
    awaiting: HashMap<WorkspaceId, (HostId, DateTime<Utc>)>,
}

/// What a read brought.
#[derive(Debug)]
pub struct Read {
    /// PostgreSQL's clock before it.
    pub now: DateTime<Utc>,
    /// Rows that changed.
    pub changed: HashSet<WorkspaceId>,
    /// Everything was read anew.
    pub anew: bool,
}

impl Rows {
    /// Reads what changed.
    pub async fn read(&mut self, pool: &Pool, lease: &Lease) -> Result<Read, DbError> {
        // No two leases of a service have the same epoch, of whatever shard they are.
        if self.epoch != Some(lease.epoch) {
            *self = Self::default();
        }
        let mut read = pool.observed_rows(lease.shard, self.token).await?;
        if self.token.is_some_and(|token| read.token < token) {
            tracing::warn!("the database has lost transactions: everything is read anew");
            *self = Self::default();
            read = pool.observed_rows(lease.shard, None).await?;
        }
        let anew = self.token.is_none();
        self.epoch = Some(lease.epoch);
        self.token = Some(read.token);
        let changed = read.rows.iter().map(|row| row.id).collect();
        for row in read.rows {
            self.put(row);
        }
        Ok(Read {
            now: read.now,
            changed,
            anew,
        })
    }

    fn put(&mut self, row: ObservedRow) {
        let id = row.id;
        self.in_progress.remove(&id);
        self.awaiting.remove(&id);
        if row.gone {
            self.rows.remove(&id);
            return;
        }
        if row.in_progress {
            self.in_progress.insert(id);
        }
        if let Some(after) = row.proof_after {
            self.awaiting.insert(id, (row.host_id, after));
        }
        let row = Row {
            host_id: row.host_id,
            archive_key: row.archive_key.map(String::into_boxed_str),
            restore_key: row.restore_key.map(String::into_boxed_str),
            conditions: Arc::new(row.conditions),
            trace: row.trace.filter(|_| trace::enabled()),
        };
        self.rows.insert(id, row);
    }

    /// These conditions were committed.
    pub fn committed(&mut self, stored: Vec<(WorkspaceId, Arc<Conditions>)>) {
        for (id, conditions) in stored {
            if let Some(row) = self.rows.get_mut(&id) {
                row.conditions = conditions;
            }
        }
    }

    /// A row.
    pub fn get(&self, id: WorkspaceId) -> Option<&Row> {
        self.rows.get(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether an operation is in progress anywhere.
    pub fn is_active(&self) -> bool {
        !self.in_progress.is_empty()
    }

    /// Hosts of which a full list is waited for, and the moments after which it has to begin.
    pub fn awaiting(&self) -> impl Iterator<Item = (HostId, DateTime<Utc>)> {
        self.awaiting.values().copied()
    }
}
