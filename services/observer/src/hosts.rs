//! What is known of each host: its mirror, and when it was observed.
//!
//! `fresh` is never later than the beginning of a full list of the host, by PostgreSQL's clock: the moment at
//! which the pass that was told of the list began, less the age of the list. Of a list that was made for that
//! very pass (`prove`, or the lists of v0.1.0) it is the former: such a list begins after it is asked for.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use windlass_db::{read::ObservedHost, write::observer::Noted};
use windlass_domain::{HostId, WorkspaceId, observation::HostSeen};

use crate::{look::HostNews, mirror::Mirror};

/// One host.
#[derive(Debug, Default)]
struct Known {
    mirror: Mirror,
    fresh: Option<DateTime<Utc>>,
    /// Why it could not be observed last; `None`: it was not tried yet.
    error: Option<String>,
}

/// All hosts.
#[derive(Debug, Default)]
pub struct Hosts {
    known: HashMap<HostId, Known>,
}

impl Hosts {
    /// Goes on with these hosts, of which `new` are not known yet.
    pub fn keep(&mut self, hosts: &[ObservedHost], new: &[HostId]) {
        let stays = |id: &HostId| hosts.iter().any(|h| h.id == *id) && !new.contains(id);
        self.known.retain(|id, _| stays(id));
        for host in hosts {
            self.known.entry(host.id).or_default();
        }
    }

    /// Where the mirror of a host stands.
    pub fn position(&self, host: HostId) -> String {
        let known = self.known.get(&host);
        known
            .map(|k| k.mirror.position().to_owned())
            .unwrap_or_default()
    }

    /// What is there of a workspace on a host.
    pub fn seen(&self, host: HostId, id: WorkspaceId) -> HostSeen {
        let known = self.known.get(&host);
        known.map(|k| k.mirror.seen(id)).unwrap_or_default()
    }

    /// Containers and volumes of a host.
    pub fn counts(&self, host: HostId) -> (usize, usize) {
        self.known.get(&host).map_or((0, 0), |k| k.mirror.counts())
    }

    /// No full list of a host that this observer was told of began earlier; `None`: it was told of none.
    pub fn fresh(&self, host: HostId) -> Option<DateTime<Utc>> {
        self.known.get(&host)?.fresh
    }

    /// Why a host could not be observed last; `None`: it was not tried yet.
    pub fn error(&self, host: HostId) -> Option<&str> {
        self.known.get(&host)?.error.as_deref()
    }

    /// A host answered a look that began at `began_at`, and was asked for a full list or not. Returns the
    /// workspaces that are concerned.
    pub fn answered(
        &mut self,
        host: HostId,
        news: HostNews,
        began_at: DateTime<Utc>,
        proved: bool,
    ) -> HashSet<WorkspaceId> {
        let known = self.known.entry(host).or_default();
        known.error = Some(String::new());
        let applied = known.mirror.apply(news);
        let listed = match applied.list {
            _ if applied.is_list => Some(began_at),
            Some(_) if proved => Some(began_at),
            Some(list) => began_at.checked_sub_signed(list.age.max(TimeDelta::zero())),
            None => None,
        };
        // As PostgreSQL keeps it, so that it compares with what is stored.
        known.fresh = known.fresh.max(listed.map(|at| at.trunc_subsecs(6)));
        applied.touched
    }

    /// A host could not be observed.
    pub fn failed(&mut self, host: HostId, error: String) {
        self.known.entry(host).or_default().error = Some(error);
    }

    /// What is to be written of a host, if anything.
    pub fn note(&self, stored: &ObservedHost) -> Option<Noted> {
        let known = self.known.get(&stored.id)?;
        let error = known.error.as_ref()?;
        let observed_at = known.fresh.filter(|at| stored.observed_at < Some(*at));
        (observed_at.is_some() || *error != stored.error).then(|| Noted {
            observed_at,
            error: error.clone(),
        })
    }
}
