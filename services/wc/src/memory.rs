//! What a leader remembers from pass to pass: up to where it has seen changes, which workspaces it could not
//! judge for good, and for which something is due by the clock alone. All of it may be lost; then every
//! living row is looked at once.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use windlass_db::read::{Scope, WatchToken};
use windlass_domain::{Epoch, Workspace, WorkspaceId, attention, planner::Plan};

/// When to look at a workspace again.
#[derive(Clone, Copy, Debug)]
pub enum Again {
    /// When its row changes, or says so by its columns.
    ByItsRow,
    /// In the next pass: it could not be judged for good.
    Soon,
    /// Then, by the clock alone.
    At(Instant),
}

impl Again {
    /// By its plan; `now` is PostgreSQL's, and now.
    pub fn of(ws: &Workspace, plan: &Plan, now: DateTime<Utc>) -> Self {
        // Where a plan changes its row, the row comes back by that.
        if attention::by_columns(ws) {
            return Self::ByItsRow;
        }
        if !plan.settled {
            return Self::Soon;
        }
        let ahead = plan.again_at.map(|at| (at - now).to_std());
        let at = ahead.and_then(|ahead| Instant::now().checked_add(ahead.unwrap_or_default()));
        // What is further ahead than a clock can tell comes with a whole look.
        at.map_or(Self::ByItsRow, Self::At)
    }
}

/// The memory of one leadership.
#[derive(Debug)]
pub struct Memory {
    whole_every: Duration,
    epoch: Option<Epoch>,
    token: Option<WatchToken>,
    whole_due: Instant,
    unsettled: HashSet<WorkspaceId>,
    /// When to look again at workspaces at rest, as far ahead as PostgreSQL's clock was of it.
    again: HashMap<WorkspaceId, Instant>,
    /// The ids that the present pass asks for beside what PostgreSQL finds.
    asked: Vec<WorkspaceId>,
}

impl Memory {
    /// Nothing yet. Everything is looked at anew every `whole_every`.
    pub fn new(whole_every: Duration) -> Self {
        Self {
            whole_every,
            epoch: None,
            token: None,
            whole_due: Instant::now(),
            unsettled: HashSet::new(),
            again: HashMap::new(),
            asked: Vec::new(),
        }
    }

    /// What the leader of `epoch` has to look at now; `and` as well, whatever it is.
    pub fn scope(&mut self, epoch: Epoch, whole: bool, and: Option<WorkspaceId>) -> Scope<'_> {
        if self.epoch.replace(epoch) != Some(epoch) {
            self.token = None;
        }
        match self.token {
            Some(token) if !whole && Instant::now() < self.whole_due => {
                self.asked.clear();
                let now = Instant::now();
                let due = self.again.iter().filter(|(_, at)| **at <= now);
                let due = due.map(|(id, _)| *id);
                self.asked
                    .extend(self.unsettled.iter().copied().chain(due).chain(and));
                Scope::Since(token, &self.asked)
            }
            Some(_) | None => Scope::Whole,
        }
    }

    /// To be told when a pass has done everything for what it looked at, and not before: what changed until
    /// `token` is not looked at again. `looked_at` is everything that was looked at.
    pub fn done(
        &mut self,
        whole: bool,
        token: WatchToken,
        looked_at: impl Iterator<Item = (WorkspaceId, Again)>,
    ) {
        self.nothing(whole);
        if whole {
            self.again.clear();
        }
        for (id, again) in looked_at {
            self.again.remove(&id);
            match again {
                Again::ByItsRow => {}
                Again::Soon => {
                    self.unsettled.insert(id);
                }
                Again::At(at) => {
                    self.again.insert(id, at);
                }
            }
        }
        self.token = Some(token);
    }

    /// To be told when there was nothing to look at.
    pub fn nothing(&mut self, whole: bool) {
        // Who is not found is gone for good.
        self.unsettled.clear();
        for id in self.asked.drain(..) {
            self.again.remove(&id);
        }
        if whole {
            self.whole_due = Instant::now() + self.whole_every;
        }
    }
}
