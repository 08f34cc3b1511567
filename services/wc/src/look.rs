//! What a pass looks at. What has something to do or is at work is kept as it was read, to be compared with the
//! others, stored and called for. Of a workspace at rest, as nearly all are when everything is looked at, only what
//! later passes are to know of it is kept.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use windlass_db::{
    DbError, Pool,
    read::{Attended, Attention, HostRef, Scope},
};
use windlass_domain::{HostId, Shard, WorkspaceId};

use crate::{
    account::{Account, Counted},
    memory::Again,
    plan::{Planned, Planner},
};

/// What a pass has looked at.
#[derive(Debug)]
pub struct Look {
    /// What is not at rest, with what is planned for it.
    pub planned: Vec<Planned>,
    /// Name and agent's address of each host.
    pub hosts: HashMap<HostId, HostRef>,
    /// When, and where the next look goes on.
    pub seen: Attention,
    at_rest: Vec<Noted>,
}

/// What later passes know of a workspace.
#[derive(Clone, Copy, Debug)]
pub struct Noted {
    /// Which one.
    pub id: WorkspaceId,
    /// What is counted of it.
    pub counted: Counted,
    /// When it is looked at again.
    pub again: Again,
}

impl Look {
    /// Looks at what is in `scope`, and plans each. `None`: there is nothing.
    pub async fn at(
        pool: &Pool,
        shard: Shard,
        scope: Scope<'_>,
        mut planner: Planner<'_>,
        account: &mut Account,
    ) -> Result<Option<Self>, DbError> {
        let mut hosts = HashMap::new();
        let (mut planned, mut at_rest) = (Vec::new(), Vec::new());
        let each = |Attended { record, host, now }| {
            hosts.entry(record.workspace.host_id).or_insert(host);
            let one = planner.plan(record, now);
            if one.is_at_rest() {
                account.decided(&one.record, &one.plan.next, now);
                at_rest.push(Noted::of(&one, now));
            } else {
                planned.push(one);
            }
        };
        let seen = pool.attention(shard, scope, each).await?;
        Ok(seen.map(|seen| Self {
            planned,
            hosts,
            seen,
            at_rest,
        }))
    }

    /// How many workspaces were looked at.
    pub fn len(&self) -> usize {
        self.at_rest.len() + self.planned.len()
    }

    /// All workspaces that were looked at.
    pub fn noted(&self) -> impl Iterator<Item = Noted> {
        let now = self.seen.now;
        let planned = self.planned.iter().map(move |one| Noted::of(one, now));
        self.at_rest.iter().copied().chain(planned)
    }
}

impl Noted {
    fn of(one: &Planned, now: DateTime<Utc>) -> Self {
        let ws = &one.record.workspace;
        Self {
            id: ws.id,
            counted: Counted::of(ws, &one.plan.next, now),
            again: Again::of(ws, &one.plan, now),
        }
    }
}
