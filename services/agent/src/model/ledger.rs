//! Entries with the revision at which each last changed, so that "what changed since" costs what changed.
//!
//! Invariants: each change has a revision of its own and the log holds the latest one of every key,
//! removed keys included; an entry that is set to what it is keeps its revision; a position that cannot
//! be answered exactly (another incarnation, from the future, older than the oldest removal that was
//! forgotten) is answered with the whole.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// Removals that are remembered at most.
pub const MAX_REMOVED: usize = 10_000;

/// Where a follower stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Of the ledger: random, new with every one.
    pub incarnation: Uuid,
    /// The last change it knows.
    pub revision: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.incarnation.simple(), self.revision)
    }
}

/// Not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position")]
pub struct NoPosition;

impl FromStr for Position {
    type Err = NoPosition;

    fn from_str(text: &str) -> Result<Self, NoPosition> {
        let (incarnation, revision) = text.split_once(':').ok_or(NoPosition)?;
        Ok(Self {
            incarnation: Uuid::try_parse(incarnation).map_err(|_| NoPosition)?,
            revision: revision.parse().map_err(|_| NoPosition)?,
        })
    }
}

/// What a follower has to apply to stand at `position`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta<K, V> {
    /// These are all there are.
    pub whole: bool,
    /// What is there, and `None` for what is gone.
    pub changes: Vec<(K, Option<Arc<V>>)>,
    /// Where the follower stands then.
    pub position: Position,
}

/// Entries by key; see the module.
#[derive(Debug, Clone)]
pub struct Ledger<K, V> {
    incarnation: Uuid,
    revision: u64,
    entries: BTreeMap<K, (u64, Arc<V>)>,
    removed: HashMap<K, u64>,
    log: BTreeMap<u64, K>,
    /// Revision of the newest removal that was forgotten.
    forgotten: u64,
    max_removed: usize,
}

impl<K: Ord + Hash + Clone, V: PartialEq> Ledger<K, V> {
    /// An empty ledger that remembers so many removals.
    pub fn new(incarnation: Uuid, max_removed: usize) -> Self {
        Self {
            incarnation,
            revision: 0,
            entries: BTreeMap::new(),
            removed: HashMap::new(),
            log: BTreeMap::new(),
            forgotten: 0,
            max_removed,
        }
    }

    /// The entry of a key.
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.entries.iter().map(|(key, (_, value))| (key, value))
    }

    /// Makes a key's entry this one; returns whether that changed anything.
    pub fn set(&mut self, key: K, value: Arc<V>) -> bool {
        let before = match self.entries.get(&key) {
            Some((_, old)) if Arc::ptr_eq(old, &value) || *old == value => return false,
            Some((revision, _)) => Some(*revision),
            None => self.removed.remove(&key),
        };
        let revision = self.next(&key, before);
        self.entries.insert(key, (revision, value));
        true
    }

    /// Removes a key's entry; returns whether there was one.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some((before, _)) = self.entries.remove(key) else {
            return false;
        };
        let revision = self.next(key, Some(before));
        self.removed.insert(key.clone(), revision);
        self.forget_removals();
        true
    }

    /// Makes the entries of a scope exactly these; returns the keys that changed.
    pub fn replace(&mut self, scope: impl Fn(&K) -> bool, now: BTreeMap<K, Arc<V>>) -> Vec<K> {
        let gone = |key: &&K| scope(key) && !now.contains_key(*key);
        let mut changed: Vec<K> = self.entries.keys().filter(gone).cloned().collect();
        for key in &changed {
            self.remove(key);
        }
        for (key, value) in now {
            if self.set(key.clone(), value) {
                changed.push(key);
            }
        }
        changed
    }

    /// Where somebody stands who knows everything.
    pub fn position(&self) -> Position {
        Position {
            incarnation: self.incarnation,
            revision: self.revision,
        }
    }

    /// What changed after a position; the whole, if it is none of this ledger or too old.
    pub fn since(&self, position: Option<Position>) -> Delta<K, V> {
        let known = position.filter(|p| {
            let revisions = self.forgotten..=self.revision;
            p.incarnation == self.incarnation && revisions.contains(&p.revision)
        });
        let changes = match known {
            Some(from) => self
                .log
                .range(from.revision + 1..)
                .map(|(_, key)| (key.clone(), self.get(key).cloned()))
                .collect(),
            None => self
                .iter()
                .map(|(key, value)| (key.clone(), Some(value.clone())))
                .collect(),
        };
        Delta {
            whole: known.is_none(),
            changes,
            position: self.position(),
        }
    }

    /// The revision of a change of `key`, which stands in the log instead of the one `before`.
    fn next(&mut self, key: &K, before: Option<u64>) -> u64 {
        if let Some(before) = before {
            self.log.remove(&before);
        }
        self.revision += 1;
        self.log.insert(self.revision, key.clone());
        self.revision
    }

    /// In bulk, so that it costs next to nothing per removal.
    fn forget_removals(&mut self) {
        if self.removed.len() <= self.max_removed {
            return;
        }
        let mut revisions: Vec<u64> = self.removed.values().copied().collect();
        revisions.sort_unstable();
        let newest = revisions[revisions.len() / 10];
        self.removed.retain(|_, revision| *revision > newest);
        for revision in revisions.into_iter().take_while(|r| *r <= newest) {
            self.log.remove(&revision);
        }
        self.forgotten = newest;
    }
}
