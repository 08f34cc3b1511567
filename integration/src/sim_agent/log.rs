//! Values by name that remember in which order they changed, so that what changed since any moment is read
//! at the cost of what changed.

use std::collections::{BTreeMap, HashMap};

/// The log. Revisions begin at 1 and grow with every change.
#[derive(Debug)]
pub struct Log<V> {
    revision: u64,
    /// `None`: gone.
    values: HashMap<String, (u64, Option<V>)>,
    order: BTreeMap<u64, String>,
}

impl<V> Default for Log<V> {
    fn default() -> Self {
        Self {
            revision: 0,
            values: HashMap::new(),
            order: BTreeMap::new(),
        }
    }
}

impl<V: Clone> Log<V> {
    /// The last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A value is now this.
    pub fn put(&mut self, name: String, value: V) {
        self.set(name, Some(value));
    }

    /// A value is gone; nothing if it was not there.
    pub fn remove(&mut self, name: &str) {
        if self.values.get(name).is_some_and(|(_, v)| v.is_some()) {
            self.set(name.to_owned(), None);
        }
    }

    /// A value is gone, and that is to be told though it may never have been there.
    pub fn tombstone(&mut self, name: &str) {
        self.set(name.to_owned(), None);
    }

    fn set(&mut self, name: String, value: Option<V>) {
        self.revision += 1;
        if let Some((earlier, _)) = self.values.insert(name.clone(), (self.revision, value)) {
            self.order.remove(&earlier);
        }
        self.order.insert(self.revision, name);
    }

    /// What changed after a revision: values, and names of what is gone.
    pub fn since(&self, revision: u64) -> (Vec<V>, Vec<String>) {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        for name in self.order.range(revision + 1..).map(|(_, name)| name) {
            match self.values.get(name) {
                Some((_, Some(value))) => changed.push(value.clone()),
                Some((_, None)) | None => gone.push(name.clone()),
            }
        }
        (changed, gone)
    }

    /// Everything there is.
    pub fn all(&self) -> Vec<V> {
        self.since(0).0
    }
}
