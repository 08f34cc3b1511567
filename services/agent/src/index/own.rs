//! This agent's own changes of the store: what a full list of another agent may not show yet.
//!
//! Invariant: a change is told for a while only. By then every list in use anywhere is younger than the
//! change, and what is told here must not stand against what was done elsewhere since.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{ArchiveEntry, ArchiveKey};
use crate::model::{Delta, Ledger, Position};

/// Changes that are remembered at most.
const MAX: usize = 10_000;

/// The changes, oldest first, and what follows from them.
#[derive(Debug)]
pub(super) struct Own {
    recent: VecDeque<(Instant, ArchiveKey, Arc<ArchiveEntry>)>,
    ledger: Ledger<ArchiveKey, ArchiveEntry>,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            // Nothing is ever removed from it.
            ledger: Ledger::new(Uuid::new_v4(), 0),
        }
    }
}

impl Own {
    pub(super) fn add(&mut self, at: Instant, key: ArchiveKey, entry: Arc<ArchiveEntry>) {
        self.recent.push_back((at, key.clone(), entry.clone()));
        self.ledger.set(key, entry);
        if self.recent.len() > MAX {
            self.recent.drain(..MAX / 10);
            self.begin_anew();
        }
    }

    /// Forgets what was done before, once some of it is older by the slack: in bulk, since followers get all
    /// the rest anew each time.
    pub(super) fn forget_before(&mut self, limit: Instant, slack: Duration) {
        let oldest = self.recent.front();
        if oldest.is_some_and(|(at, ..)| *at + slack < limit) {
            let old = self.recent.partition_point(|(at, ..)| *at < limit);
            self.recent.drain(..old);
            self.begin_anew();
        }
    }

    /// What was done since then, oldest first.
    pub(super) fn after(
        &self,
        limit: Instant,
    ) -> impl Iterator<Item = (&ArchiveKey, &Arc<ArchiveEntry>)> {
        let old = self.recent.partition_point(|(at, ..)| *at < limit);
        self.recent.range(old..).map(|(_, key, entry)| (key, entry))
    }

    pub(super) fn since(&self, position: Option<Position>) -> Delta<ArchiveKey, ArchiveEntry> {
        self.ledger.since(position)
    }

    /// With a new incarnation, so that followers forget, too.
    fn begin_anew(&mut self) {
        self.ledger = Ledger::new(Uuid::new_v4(), 0);
        for (_, key, entry) in &self.recent {
            self.ledger.set(key.clone(), entry.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_forgotten_by_everybody() {
        let mut own = Own::default();
        let key = |n: usize| ArchiveKey::Archive(n.to_string());
        let gone = || Arc::new(ArchiveEntry::Gone);
        let begun = Instant::now();
        let later = begun + Duration::from_secs(1);
        own.add(begun, key(1), gone());
        let position = own.since(None).position;
        own.add(later, key(2), gone());
        let delta = own.since(Some(position));
        assert_eq!((delta.whole, delta.changes.len()), (false, 1));
        assert_eq!(own.after(later).count(), 1);

        own.forget_before(begun, Duration::ZERO);
        assert!(!own.since(Some(position)).whole);
        own.forget_before(later, Duration::ZERO);
        let delta = own.since(Some(position));
        assert_eq!((delta.whole, delta.changes[0].0.clone()), (true, key(2)));
        assert_eq!(delta.changes.len(), 1);
    }

    /// One change a second, and one pass: nearly all passes get what changed only.
    #[test]
    fn they_are_forgotten_in_bulk() {
        let mut own = Own::default();
        let begun = Instant::now();
        let second = |n: u64| begun + Duration::from_secs(n);
        for n in 0..200 {
            let key = ArchiveKey::Archive(n.to_string());
            own.add(second(n), key, Arc::new(ArchiveEntry::Gone));
        }
        let slack = Duration::from_secs(25);
        let (mut wholes, mut position) = (0, own.since(None).position);
        for n in 0..100 {
            own.forget_before(second(n), slack);
            let delta = own.since(Some(position));
            wholes += usize::from(delta.whole);
            position = delta.position;
            assert!(own.recent[0].0 + slack >= second(n), "told too long");
        }
        assert_eq!(wholes, 3);
    }

    #[test]
    fn they_are_bounded() {
        let mut own = Own::default();
        for n in 0..2 * MAX {
            let key = ArchiveKey::Archive(n.to_string());
            own.add(Instant::now(), key, Arc::new(ArchiveEntry::Gone));
        }
        assert!(own.recent.len() <= MAX);
        assert_eq!(own.since(None).changes.len(), own.recent.len());
    }
}
