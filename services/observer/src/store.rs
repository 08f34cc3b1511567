//! What is known of the archive store, which all hosts share.
//!
//! One host's agent is asked for all archives, and lists the store for that; the others tell only what they
//! changed themselves, which that list may not show yet. What counts of a key, in this order:
//!
//! 1. Gone, if any agent tells that it deleted it: a key is made once and never again.
//! 2. There, if any agent tells that it made it, until the list has shown it once. From then on the list
//!    decides, so that what is deleted elsewhere does not come back.
//! 3. What the list says.
//!
//! An agent forgets its own changes once every list in use is younger than they are; so the next full list
//! settles everything, also what one agent made and another deleted.
//!
//! The store is observed if the agent that is asked for all answers. If it does not, the next one (by id) is
//! asked; an agent that answers but cannot tell is given a while, because its first list takes a while. A
//! list makes the store fresher only when the same agent told of an earlier one: lists of one agent follow
//! each other, so two of them are two complete observations in a row.
//!
//! With shards each has an agent of its own that it asks for all, but the store has one row. A list of another
//! shard's agent confirms nothing of what is absent here, so then nobody says when the store was listed.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use windlass_db::{read::ObservedHosts, write::observer::Noted};
use windlass_domain::{
    HostId, Shard, WorkspaceId,
    conditions::{ArchiveEvidence, RestoreEvidence},
    observation::ArchivesSeen,
};
use windlass_proto::v1::ArchiveScope;

use crate::{evidence, look::ArchiveNews, whole};

/// How long an agent that answers may be unable to tell before another one is asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// The archive store as the agents know it.
#[derive(Debug, Default)]
pub struct Store {
    /// Who is asked for all.
    asked: Option<HostId>,
    /// Since when it cannot tell.
    failing_since: Option<Instant>,
    positions: HashMap<HostId, (ArchiveScope, String)>,
    /// The list.
    listed: HashMap<WorkspaceId, ArchivesSeen>,
    listed_archives: usize,
    /// The last list and whose it is.
    list: Option<(HostId, DateTime<Utc>)>,
    /// What agents changed themselves.
    own: HashMap<WorkspaceId, Vec<Own>>,
    /// When the last pass began that was told of a newer list.
    fresh: Option<DateTime<Utc>>,
    /// Why it cannot tell; `None`: nobody has answered yet.
    error: Option<String>,
    /// The error as of the last write.
    told: Option<String>,
}

/// One agent's own change.
#[derive(Clone, Debug)]
struct Own {
    host: HostId,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    /// With whether the list has shown it.
    Made(Arc<ArchiveEvidence>, bool),
    Restored(RestoreEvidence),
    Deleted(String),
}

impl Store {
    /// Goes on with these hosts, by id.
    pub fn keep(&mut self, hosts: &[HostId]) {
        self.positions.retain(|host, _| hosts.contains(host));
        self.own.retain(|_, own| {
            own.retain(|o| hosts.contains(&o.host));
            !own.is_empty()
        });
        if self.asked.is_none_or(|asked| !hosts.contains(&asked)) {
            self.ask(hosts.first().copied());
        }
    }

    fn ask(&mut self, host: Option<HostId>) {
        self.asked = host;
        self.failing_since = None;
    }

    /// What to ask this host for, and where what is known of it stands.
    pub fn question(&self, host: HostId) -> (ArchiveScope, String) {
        let scope = match self.asked == Some(host) {
            true => ArchiveScope::All,
            false => ArchiveScope::Own,
        };
        let position = self.positions.get(&host).filter(|(of, _)| *of == scope);
        (scope, position.map(|(_, p)| p.clone()).unwrap_or_default())
    }

    /// Who is asked for all.
    pub fn asked(&self) -> Option<HostId> {
        self.asked
    }

    /// Why the store cannot be observed; empty if it was when last asked.
    pub fn error(&self) -> &str {
        self.error.as_deref().unwrap_or_default()
    }

    /// What is to be written of it, if anything. Of an error only its changes are: another shard may have
    /// written another one since.
    pub fn note(&self, stored: &ObservedHosts, shard: Shard) -> Option<Noted> {
        let error = self.error.as_ref()?;
        let alone = shard.count() == 1;
        let is_news = |at: &DateTime<Utc>| alone && stored.store_observed_at < Some(*at);
        let observed_at = self.fresh.filter(is_news);
        let changed = *error != stored.store_error && self.told.as_ref() != Some(error);
        (observed_at.is_some() || changed).then(|| Noted {
            observed_at,
            error: error.clone(),
        })
    }

    /// What there was to be written is.
    pub fn noted(&mut self) {
        self.told.clone_from(&self.error);
    }

    /// Archives in the list.
    pub fn count(&self) -> usize {
        self.listed_archives
    }

    /// What is there of a workspace.
    pub fn seen(&self, id: WorkspaceId) -> ArchivesSeen {
        let mut seen = self.listed.get(&id).cloned().unwrap_or_default();
        let own = self.own.get(&id).map_or(&[][..], Vec::as_slice);
        for Own { change, .. } in own {
            match change {
                Change::Made(archive, false) => put_archive(&mut seen, Arc::clone(archive)),
                Change::Restored(restore) => put_restore(&mut seen, restore.clone()),
                Change::Made(_, true) | Change::Deleted(_) => {}
            }
        }
        for Own { change, .. } in own {
            if let Change::Deleted(key) = change {
                remove_key(&mut seen, key);
            }
        }
        seen
    }

    /// An agent answered a look that began at `began_at`. Returns the workspaces that are concerned.
    pub fn apply(
        &mut self,
        host: HostId,
        scope: ArchiveScope,
        news: ArchiveNews,
        began_at: DateTime<Utc>,
    ) -> HashSet<WorkspaceId> {
        let current = self.question(host).0 == scope;
        if !current {
            return HashSet::new(); // asked before another one was to be asked for all
        }
        self.positions.insert(host, (scope, news.position.clone()));
        if scope == ArchiveScope::Own {
            return self.apply_own(host, news);
        }
        self.failing_since = None;
        self.error = Some(String::new());
        if let Some(listed_at) = news.listed_at {
            match self.list.replace((host, listed_at)) {
                Some((of, earlier)) if of == host && earlier < listed_at => {
                    self.fresh = Some(began_at);
                }
                Some(_) | None => {}
            }
        }
        // Its own changes are in its list now.
        let mut touched = self.forget_own(host);
        touched.extend(self.apply_list(news));
        touched
    }

    /// An agent's answer told nothing of archives. `reached`: it did answer.
    pub fn failed(&mut self, host: HostId, reached: bool, error: &str, hosts: &[HostId]) {
        if self.asked != Some(host) {
            return;
        }
        self.error = Some(error.to_owned());
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if !reached || since.elapsed() > PATIENCE {
            let next = hosts.iter().find(|h| **h > host).or(hosts.first());
            self.ask(next.copied());
        }
    }

    fn apply_list(&mut self, news: ArchiveNews) -> HashSet<WorkspaceId> {
        let known = news.whole.then(|| std::mem::take(&mut self.listed));
        if news.whole {
            self.listed_archives = 0;
        }
        let mut touched = HashSet::new();
        for key in news.gone_archives.iter().chain(&news.gone_restores) {
            if let Some(id) = evidence::key_of(key) {
                touched.insert(id);
                self.edit(id, |seen| remove_key(seen, key));
            }
        }
        for (id, archive) in news.archives {
            touched.insert(id);
            self.shown(id, &archive.key);
            self.edit(id, |seen| put_archive(seen, archive));
        }
        for (id, restore) in news.restores {
            touched.insert(id);
            self.edit(id, |seen| put_restore(seen, restore));
        }
        if let Some(known) = known {
            touched = whole::differing(known, &mut self.listed);
            touched.extend(self.own.keys());
        }
        touched
    }

    fn edit(&mut self, id: WorkspaceId, change: impl FnOnce(&mut ArchivesSeen)) {
        let seen = self.listed.entry(id).or_default();
        let before = seen.archives.len();
        change(seen);
        self.listed_archives = self.listed_archives + seen.archives.len() - before;
        if *seen == ArchivesSeen::default() {
            self.listed.remove(&id);
        }
    }

    /// The list shows an archive: it decides from now on.
    fn shown(&mut self, id: WorkspaceId, key: &str) {
        for own in self.own.get_mut(&id).into_iter().flatten() {
            if let Change::Made(archive, shown) = &mut own.change
                && archive.key == key
            {
                *shown = true;
            }
        }
    }

    fn forget_own(&mut self, host: HostId) -> HashSet<WorkspaceId> {
        let mut touched = HashSet::new();
        self.own.retain(|id, own| {
            let before = own.len();
            own.retain(|o| o.host != host);
            if own.len() < before {
                touched.insert(*id);
            }
            !own.is_empty()
        });
        touched
    }

    fn apply_own(&mut self, host: HostId, news: ArchiveNews) -> HashSet<WorkspaceId> {
        let mut touched = HashSet::new();
        let mut settled = HashSet::new();
        if news.whole {
            // What is told again is not news: what the list has shown stays shown.
            let own = self.own.values().flatten().filter(|o| o.host == host);
            settled.extend(own.filter_map(|o| match &o.change {
                Change::Made(archive, true) => Some(archive.key.clone()),
                Change::Made(_, false) | Change::Restored(_) | Change::Deleted(_) => None,
            }));
            touched = self.forget_own(host);
        }
        for (id, archive) in news.archives {
            let listed = self.listed.get(&id);
            let shown = settled.contains(&archive.key)
                || listed.is_some_and(|s| s.archives.iter().any(|a| a.key == archive.key));
            self.put_own(host, id, Change::Made(archive, shown));
            touched.insert(id);
        }
        for (id, restore) in news.restores {
            self.put_own(host, id, Change::Restored(restore));
            touched.insert(id);
        }
        for key in news.gone_archives.into_iter().chain(news.gone_restores) {
            if let Some(id) = evidence::key_of(&key) {
                self.put_own(host, id, Change::Deleted(key));
                touched.insert(id);
            }
        }
        touched
    }

    /// The last word of an agent about a key stands.
    fn put_own(&mut self, host: HostId, id: WorkspaceId, change: Change) {
        let own = self.own.entry(id).or_default();
        own.retain(|o| o.host != host || !o.change.is_of_same_key(&change));
        own.push(Own { host, change });
    }
}

impl Change {
    fn is_of_same_key(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Made(a, _), Self::Made(b, _)) => a.key == b.key,
            (Self::Restored(a), Self::Restored(b)) => a == b,
            (Self::Deleted(a), Self::Deleted(b)) => a == b,
            (Self::Made(a, _), Self::Deleted(key)) | (Self::Deleted(key), Self::Made(a, _)) => {
                a.key == *key
            }
            (Self::Restored(r), Self::Deleted(key)) | (Self::Deleted(key), Self::Restored(r)) => {
                evidence::restore_op_of(key) == Some(r.op_id)
            }
            (Self::Made(..), Self::Restored(_)) | (Self::Restored(_), Self::Made(..)) => false,
        }
    }
}

fn put_archive(seen: &mut ArchivesSeen, archive: Arc<ArchiveEvidence>) {
    match seen.archives.iter_mut().find(|a| a.key == archive.key) {
        Some(known) => *known = archive,
        None => seen.archives.push(archive),
    }
}

fn put_restore(seen: &mut ArchivesSeen, restore: RestoreEvidence) {
    match seen.restores.iter_mut().find(|r| r.op_id == restore.op_id) {
        Some(known) => *known = restore,
        None => seen.restores.push(restore),
    }
}

fn remove_key(seen: &mut ArchivesSeen, key: &str) {
    seen.archives.retain(|a| a.key != key);
    let op = evidence::restore_op_of(key);
    seen.restores.retain(|r| Some(r.op_id) != op);
}

#[cfg(test)]
mod tests;
