//! The rows, as far as deciding needs them, in memory.
//!
//! Each pass reads what changed since the last one. Invariant: what is here was read from the database, or
//! was committed to it by this leader after that; what could not be written is not here. With another epoch,
//! or when the database has lost transactions, everything is read anew. What a read brought waits here until
//! it is taken: a pass that fails after the read must not lose it, since no later read brings it again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use windlass_db::{
    DbError, Lease, Pool,
    read::{Horizon, ObservedRow, ObservedTrace, RowVersion},
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
    horizon: Option<Horizon>,
    /// What was committed last.
    own: Option<RowVersion>,
    rows: HashMap<WorkspaceId, Row>,
    in_progress: HashSet<WorkspaceId>,
    awaiting: HashMap<WorkspaceId, (HostId, DateTime<Utc>)>,
    undecided: HashSet<WorkspaceId>,
    anew: bool,
}

impl Rows {
    /// Reads what changed. Returns PostgreSQL's clock before that.
    pub async fn read(&mut self, pool: &Pool, lease: &Lease) -> Result<DateTime<Utc>, DbError> {
        // No two leases of a service have the same epoch, of whatever shard they are.
        if self.epoch != Some(lease.epoch) {
            *self = Self::default();
        }
        let (shard, before, own) = (lease.shard, self.horizon, self.own);
        let since = before.map(|horizon| horizon.token);
        let mut read = pool
            .observed_rows(shard, since, own, |id, row| self.put(id, row))
            .await?;
        if before.is_some_and(|before| read.horizon.voids(before)) {
            tracing::warn!("the database may have lost transactions: everything is read anew");
            *self = Self::default();
            read = pool
                .observed_rows(shard, None, None, |id, row| self.put(id, row))
                .await?;
        }
        let unreadable = u64::try_from(read.unreadable).unwrap_or(u64::MAX);
        metrics::counter!("windlass_observer_unreadable_rows_total").increment(unreadable);
        self.anew |= self.horizon.is_none();
        self.epoch = Some(lease.epoch);
        self.horizon = Some(read.horizon);
        Ok(read.now)
    }

    /// Whether everything was read anew since the last call.
    pub fn take_anew(&mut self) -> bool {
        std::mem::take(&mut self.anew)
    }

    /// Rows that are to be decided about since the last call.
    pub fn take_undecided(&mut self) -> HashSet<WorkspaceId> {
        std::mem::take(&mut self.undecided)
    }

    /// What was decided about the rows of these hosts counts no more.
    pub fn undecide(&mut self, hosts: &[HostId]) {
        if hosts.is_empty() {
            return; // as ever, and there may be many rows
        }
        let rows = self.rows.iter();
        let of_them = rows.filter(|(_, row)| hosts.contains(&row.host_id));
        self.undecided.extend(of_them.map(|(id, _)| *id));
    }

    fn put(&mut self, id: WorkspaceId, row: Option<ObservedRow>) {
        self.undecided.insert(id);
        self.in_progress.remove(&id);
        self.awaiting.remove(&id);
        let known = self.rows.remove(&id).map(|row| row.conditions);
        let Some(row) = row else {
            return;
        };
        let conditions = match (row.conditions, known) {
            // Nobody but this leader has written it since: invariant.
            (None, known) => known.unwrap_or_default(),
            // What is as it was is held once.
            (Some(read), Some(known)) if *known == read => known,
            (Some(read), _) => Arc::new(read),
        };
        if row.in_progress {
            self.in_progress.insert(id);
        }
        let subject = row.subject.as_ref();
        if let Some(after) = subject.and_then(|s| s.proof_after(&conditions)) {
            self.awaiting.insert(id, (row.host_id, after));
        }
        let row = Row {
            host_id: row.host_id,
            archive_key: row.archive_key.map(String::into_boxed_str),
            restore_key: row.restore_key.map(String::into_boxed_str),
            conditions,
            trace: row.trace.filter(|_| trace::enabled()),
        };
        self.rows.insert(id, row);
    }

    /// These conditions were committed, and their rows are of this version now.
    pub fn committed(
        &mut self,
        version: Option<RowVersion>,
        stored: Vec<(WorkspaceId, Arc<Conditions>)>,
    ) {
        self.own = version.or(self.own);
        for (id, conditions) in stored {
            if let Some(row) = self.rows.get_mut(&id) {
                row.conditions = conditions;
            }
        }
    }

    /// What was observed is what is stored: it is held once, as it was observed.
    pub fn confirmed(&mut self, id: WorkspaceId, conditions: Conditions) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.conditions = Arc::new(conditions);
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use windlass_domain::{
        Home, Operation, Phase,
        conditions::{Evidence, VolumeEvidence},
        observation::proof::Subject,
    };

    use super::*;

    const ID: WorkspaceId = WorkspaceId(Uuid::from_u128(1));

    fn sees(volume: &str) -> Conditions {
        let volume = VolumeEvidence {
            name: volume.to_owned(),
            volume_id: None,
            owned: true,
        };
        Conditions {
            evidence: Evidence {
                volume: Some(volume.into()),
                ..Evidence::default()
            },
            ..Conditions::default()
        }
    }

    fn read(conditions: Option<Conditions>) -> Option<ObservedRow> {
        Some(ObservedRow {
            host_id: HostId(Uuid::from_u128(2)),
            in_progress: false,
            archive_key: None,
            restore_key: None,
            conditions,
            subject: Some(Subject {
                deleted: false,
                phase: Phase::Running,
                phase_changed_at: DateTime::UNIX_EPOCH,
                operation: Operation::None,
                error_reason: None,
                retry_at: None,
                home: Home::default(),
                observed_at: None,
            }),
            trace: None,
        })
    }

    #[test]
    fn what_is_known_already_is_held_once() {
        let mut rows = Rows::default();
        let held = |rows: &Rows| Arc::clone(&rows.get(ID).unwrap().conditions);
        rows.put(ID, read(Some(sees("v"))));
        let first = held(&rows);
        rows.put(ID, read(Some(sees("v"))));
        assert!(Arc::ptr_eq(&held(&rows), &first));
        rows.put(ID, read(Some(sees("w"))));
        assert_eq!(*held(&rows), sees("w"));

        let seen = sees("w");
        let volume = seen.evidence.volume.clone().unwrap();
        rows.confirmed(ID, seen);
        let shared = held(&rows).evidence.volume.clone().unwrap();
        assert!(Arc::ptr_eq(&shared, &volume));
        assert_eq!(rows.take_undecided(), [ID].into());
    }

    #[test]
    fn what_this_leader_wrote_stays_and_what_is_gone_goes() {
        let mut rows = Rows::default();
        rows.put(ID, read(Some(sees("v"))));
        let written = Arc::new(sees("w"));
        let version = RowVersion {
            xid: 7,
            updated_at: DateTime::UNIX_EPOCH,
        };
        rows.committed(Some(version), vec![(ID, Arc::clone(&written))]);
        rows.put(ID, read(None));
        assert!(Arc::ptr_eq(&rows.get(ID).unwrap().conditions, &written));
        rows.put(ID, None);
        assert!(rows.get(ID).is_none());
        assert_eq!(rows.take_undecided(), [ID].into());
    }
}
