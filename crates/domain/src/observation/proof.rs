//! Which rows wait for a proof: for a full list of their host that began after some moment.
//!
//! Conditions come from a model that follows the engine's events, and are stored when they change. That a
//! host was observed completely (`Freshness::host`) is said only of full lists. Most decisions need no more
//! than a list of the last minute; these need one that began after a moment of the row's own:
//!
//! | decision | the list began after |
//! |---|---|
//! | DELETED, of what was observed at all | the deletion began, and the backoff of an attempt that was given up is over |
//! | DataLost of a volume | its absence was stored |
//! | ERROR by Unreachable is over | it was entered |
//!
//! Whoever observes asks such a row's host for a full list at once; the next regular one would do as well,
//! later. DataLost of an archive waits for the next regular list of the store, minutes later: listing a store
//! is dear, and nothing can be done with a lost archive in the meantime. So does the time limit of an operation
//! for the host's: it is minutes long itself.

use chrono::{DateTime, Utc};

use crate::{
    conditions::Conditions,
    control::{Freshness, Workspace},
    error_reason::ErrorReason,
    home::Home,
    judge,
    phase::{Operation, Phase},
};

/// What of a row, beside its conditions, decides whether it waits.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Whether it was deleted.
    pub deleted: bool,
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub phase_changed_at: DateTime<Utc>,
    /// What is in progress.
    pub operation: Operation,
    /// Why the last attempt failed.
    pub error_reason: Option<ErrorReason>,
    /// When the next attempt is due.
    pub retry_at: Option<DateTime<Utc>>,
    /// The home of record.
    pub home: Home,
    /// When its conditions last changed.
    pub observed_at: Option<DateTime<Utc>>,
}

impl From<&Workspace> for Subject {
    fn from(ws: &Workspace) -> Self {
        Self {
            deleted: ws.spec.deleted,
            phase: ws.control.phase,
            phase_changed_at: ws.control.phase_changed_at,
            operation: ws.control.operation,
            error_reason: ws.control.error_reason,
            retry_at: ws.control.retry_at,
            home: ws.control.home.clone(),
            observed_at: ws.observed_at,
        }
    }
}

impl Subject {
    /// The moment after which a full list of the host has to begin for the next decision about a row with these
    /// conditions; `None`: no decision waits for one.
    pub fn proof_after(&self, conditions: &Conditions) -> Option<DateTime<Utc>> {
        let of_the_home = match self.deleted {
            true => self.deletion(conditions),
            false => self.lost_volume(conditions),
        };
        of_the_home.max(self.unreachable())
    }

    fn deletion(&self, conditions: &Conditions) -> Option<DateTime<Utc>> {
        let evidence = &conditions.evidence;
        let left = evidence.container.is_some()
            || evidence.volume.is_some()
            || !evidence.archives.is_empty()
            || !conditions.archives_known();
        let waits = self.phase == Phase::Deleting
            && self.operation == Operation::None
            && self.observed_at.is_some()
            && !left;
        waits.then(|| {
            self.retry_at
                .map_or(self.phase_changed_at, |at| at.max(self.phase_changed_at))
        })
    }

    fn lost_volume(&self, conditions: &Conditions) -> Option<DateTime<Utc>> {
        let lost = self.home.home_volume().is_some()
            && !judge::is_home_volume(&self.home, conditions)
            && self.error_reason != Some(ErrorReason::DataLost);
        self.observed_at.filter(|_| lost)
    }

    fn unreachable(&self) -> Option<DateTime<Utc>> {
        let waits =
            self.phase == Phase::Error && self.error_reason == Some(ErrorReason::Unreachable);
        waits.then_some(self.phase_changed_at)
    }
}

/// Whether the next decision about this workspace waits for a full list of its host.
pub fn awaits_proof(ws: &Workspace, fresh: &Freshness) -> bool {
    Subject::from(ws)
        .proof_after(&ws.conditions)
        .is_some_and(|after| fresh.host.is_none_or(|at| at <= after))
}
