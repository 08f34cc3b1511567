//! Who begins next. Attempts of one kind on one host share a number of places; who finds none waits. Owners
//! take turns, so that one who starts ninety at once does not keep another from starting one. Kinds and
//! hosts never wait for each other.
//!
//! The order is a pure function of the rows: wc begins by it, and ExplainWorkspace shows it.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    control::Workspace,
    ids::{HostId, WorkspaceId},
    phase::Operation,
    planner::Plan,
};

/// How much later than it came an owner's first counts, for each of the owner's others that wait.
const PER_OTHER: TimeDelta = TimeDelta::seconds(10);
/// As many others count.
const MAX_OTHERS: usize = 30;

/// One that waits for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting<'a> {
    since: DateTime<Utc>,
    id: WorkspaceId,
    owner: &'a str,
}

/// The operations of one kind on one host.
#[derive(Debug, Default)]
struct Lane<'a> {
    /// How many places each owner holds.
    holding: HashMap<&'a str, usize>,
    waiting: Vec<Waiting<'a>>,
}

/// Where a workspace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// What it waits to do.
    pub operation: Operation,
    /// 1 is next.
    pub position: usize,
    /// How many wait to do the same on its host.
    pub length: usize,
}

/// How many operations of a kind there are, on all hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// They hold a place, or find one.
    pub at_work: usize,
    /// They wait for one.
    pub waiting: usize,
}

/// Everything that holds a place or waits for one.
#[derive(Debug, Default)]
pub struct Queue<'a> {
    lanes: HashMap<(HostId, Operation), Lane<'a>>,
}

impl<'a> Queue<'a> {
    /// Adds a workspace by what is planned for it. All workspaces of a host that are at work have to be
    /// there, whether something new is planned for them or not.
    pub fn add(&mut self, ws: &'a Workspace, plan: &Plan) {
        let operation = plan.at_work();
        if operation == Operation::None {
            return;
        }
        let owner = ws.spec.owner.as_str();
        let lane = self.lanes.entry((ws.host_id, operation)).or_default();
        match plan.waits_since() {
            None => *lane.holding.entry(owner).or_default() += 1,
            Some(since) => lane.waiting.push(Waiting {
                since,
                id: ws.id,
                owner,
            }),
        }
    }

    /// Those that find no place where there are so many `places` for each kind on each host.
    pub fn left_waiting(&self, places: impl Fn(Operation) -> usize) -> HashSet<WorkspaceId> {
        let of_lane = |((_, operation), lane): (&(HostId, Operation), &Lane<'a>)| {
            let free = lane.free(places(*operation));
            // The order matters only where some are left.
            match lane.waiting.len() > free {
                true => lane.order().split_off(free),
                false => Vec::new(),
            }
        };
        self.lanes.iter().flat_map(of_lane).collect()
    }

    /// How many of each kind are at work and how many wait, where there are so many `places`.
    pub fn depths(&self, places: impl Fn(Operation) -> usize) -> HashMap<Operation, Depth> {
        let mut depths: HashMap<Operation, Depth> = HashMap::new();
        for ((_, operation), lane) in &self.lanes {
            let begins = lane.free(places(*operation)).min(lane.waiting.len());
            let depth = depths.entry(*operation).or_default();
            depth.at_work += lane.held() + begins;
            depth.waiting += lane.waiting.len() - begins;
        }
        depths
    }

    /// Where a workspace stands; `None` if it does not wait.
    pub fn position(&self, id: WorkspaceId) -> Option<Position> {
        self.lanes.iter().find_map(|((_, operation), lane)| {
            let place = lane.order().iter().position(|other| *other == id)?;
            Some(Position {
                operation: *operation,
                position: place + 1,
                length: lane.waiting.len(),
            })
        })
    }
}

impl Lane<'_> {
    fn held(&self) -> usize {
        self.holding.values().sum()
    }

    fn free(&self, places: usize) -> usize {
        places.saturating_sub(self.held())
    }

    /// Who waits, next first: turn by turn among the owners; within a turn who waits longest, where whoever has
    /// others waiting as well counts as having come later, by 5 min at most. The places an owner holds are turns
    /// they had. Turns whose place was given back are not remembered: that is why few go before many, or with a
    /// single place one who starts thirty would have the first turn thirty times. And why not for ever: nobody
    /// waits behind all who come one by one.
    fn order(&self) -> Vec<WorkspaceId> {
        let mut waiting = self.waiting.clone();
        waiting.sort_by_key(|w| (w.since, w.id));
        let mut turns = self.holding.clone();
        let mut of_owner: HashMap<&str, usize> = HashMap::new();
        for w in &waiting {
            *of_owner.entry(w.owner).or_default() += 1;
        }
        let mut order: Vec<_> = waiting
            .into_iter()
            .map(|w| {
                let turn = turns.entry(w.owner).or_default();
                *turn += 1;
                let others = of_owner.get(w.owner).map_or(0, |all| all - 1);
                let later = PER_OTHER * others.min(MAX_OTHERS) as i32;
                (*turn, w.since + later, w.id)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., id)| id).collect()
    }
}
