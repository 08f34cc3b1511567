//! One pass: load the rows that need attention, plan each, store what changed, and only then call agents.
//! Every change is a compare-and-set; a row that somebody changed meanwhile is planned anew by the next
//! pass, and no call is made for it. With nothing to do a pass is one query.

use std::collections::HashSet;

use chrono::DateTime;
use tracing::Span;
use windlass_coordinator::{Channel, Hints, Lease, Pass, PassError, Refusal, Verdict};
use windlass_db::{
    Pool,
    read::{Attention, Scope},
    write::wc::{ControlChange, Outcome, RecoveryNote},
};
use windlass_domain::{
    Phase, WorkspaceId,
    planner::Plan,
    recover::{self, Accept},
};
use windlass_proto::v1::ReconcileResponse;

use crate::{
    account::{self, Account},
    dispatch::Dispatcher,
    memory::Memory,
    plan::{self, Depths, Numbers},
};

/// What somebody asks of a pass.
#[derive(Debug, Default)]
pub enum Request {
    /// What needs attention.
    #[default]
    Due,
    /// Every workspace.
    All,
    /// This one.
    One(WorkspaceId),
    /// Take this one out of ERROR, then reconcile it.
    Recover(Recovery),
}

/// A recovery somebody asks for.
#[derive(Debug)]
pub struct Recovery {
    /// Of which workspace.
    pub id: WorkspaceId,
    /// What becomes the home.
    pub accept: Option<Accept>,
    /// Who asks.
    pub actor: String,
}

/// What a pass tells.
#[derive(Debug, Default)]
pub struct Report {
    /// Counts.
    pub counts: ReconcileResponse,
    /// The phase of the one workspace that was asked for.
    pub phase: Option<Phase>,
}

/// wc's pass.
#[derive(Debug)]
pub struct Reconcile {
    pool: Pool,
    hints: Hints,
    dispatcher: Dispatcher,
    numbers: Numbers,
    memory: Memory,
    account: Account,
}

impl Reconcile {
    /// A pass by these numbers.
    pub fn new(
        pool: Pool,
        hints: Hints,
        dispatcher: Dispatcher,
        numbers: Numbers,
        memory: Memory,
    ) -> Self {
        Self {
            pool,
            hints,
            dispatcher,
            numbers,
            memory,
            account: Account::default(),
        }
    }
}

impl Pass for Reconcile {
    type Request = Request;
    type Report = Report;

    async fn pass(
        &mut self,
        lease: &Lease,
        request: Request,
    ) -> Result<Verdict<Report>, PassError> {
        let (whole, only) = match request {
            Request::Due => (false, None),
            Request::All => (true, None),
            Request::One(id) => (false, Some(id)),
            Request::Recover(recovery) => {
                let id = recovery.id;
                self.recover(lease, recovery).await?;
                (false, Some(id))
            }
        };

        // Load.
        let scope = self.memory.scope(lease.epoch, whole, only);
        let whole = scope == Scope::Whole;
        let Some(seen) = self.pool.attention(lease.shard, scope).await? else {
            self.memory.nothing(whole);
            account::tell_queue(lease.shard, &Depths::default());
            if whole {
                let nobody = std::iter::empty();
                self.account
                    .census(lease.shard, DateTime::UNIX_EPOCH, whole, nobody);
            }
            return match only {
                Some(id) => Err(not_found(id)),
                None => Ok(Verdict {
                    report: Report::default(),
                    active: false,
                }),
            };
        };

        let unreadable = u64::try_from(seen.unreadable).unwrap_or(u64::MAX);
        metrics::counter!("windlass_wc_unreadable_rows_total").increment(unreadable);

        // Decide.
        let failures = self.dispatcher.failures();
        let (plans, depths) = plan::plan(&seen.records, &failures, &self.numbers, seen.now);

        // Act.
        let mut report = Report::default();
        self.account.begin();
        let decided = seen.records.iter().zip(&plans);
        let spans: Vec<_> = decided
            .clone()
            .map(|(record, plan)| self.account.decided(record, &plan.next, seen.now))
            .collect();
        let stored = self.store(lease, &seen, &plans, &mut report).await;
        // A failure is counted once it is stored.
        let counted = |id: &WorkspaceId| stored.as_ref().is_ok_and(|left| !left.contains(id));
        let lost = failures.into_iter().filter(|(id, _)| !counted(id));
        self.dispatcher.put_back(lost);
        let held_back = stored?;
        self.account.stored(&held_back);
        let counted = decided.map(|(record, plan)| (record, &plan.next));
        self.account.census(lease.shard, seen.now, whole, counted);
        account::tell_queue(lease.shard, &depths);
        self.call(
            lease,
            &seen,
            plans.iter().zip(spans),
            &held_back,
            &mut report,
        );
        let workspaces = seen.records.iter().map(|r| &r.workspace);
        self.memory
            .done(whole, (seen.token, seen.now), workspaces.zip(&plans));
        if let Some(id) = only {
            let record = self.pool.workspace(id).await?;
            let living = record.filter(|r| r.workspace.control.phase != Phase::Deleted);
            let phase = living.map(|r| r.workspace.control.phase);
            report.phase = Some(phase.ok_or_else(|| not_found(id))?);
        }
        Ok(Verdict {
            active: report.counts.changed > 0 || plans.iter().any(|p| plan::in_progress(&p.next)),
            report,
        })
    }

    fn over(&mut self, lease: &Lease) {
        self.account.over(lease.shard);
    }
}

impl Reconcile {
    /// Makes the calls of what is stored. Those that are on their way already are not made again.
    fn call<'a>(
        &mut self,
        lease: &Lease,
        seen: &Attention,
        plans: impl Iterator<Item = (&'a Plan, Option<Span>)>,
        held_back: &HashSet<WorkspaceId>,
        report: &mut Report,
    ) {
        for (record, (plan, span)) in seen.records.iter().zip(plans) {
            let ws = &record.workspace;
            let (Some(call), Some(host)) = (&plan.call, seen.hosts.get(&ws.host_id)) else {
                continue;
            };
            if !held_back.contains(&ws.id)
                && self
                    .dispatcher
                    .call(&host.address, record, call.clone(), lease, span)
            {
                report.counts.calls += 1;
            }
        }
    }

    /// Stores changes. Returns the workspaces whose change was not stored: nothing is called for them.
    async fn store(
        &self,
        lease: &Lease,
        seen: &Attention,
        plans: &[Plan],
        report: &mut Report,
    ) -> Result<HashSet<WorkspaceId>, PassError> {
        report.counts.workspaces = seen.records.len() as u32;
        let changes: Vec<_> = seen
            .records
            .iter()
            .zip(plans)
            .filter(|(record, plan)| plan.next != record.workspace.control)
            .map(|(record, plan)| ControlChange::new(&record.workspace, plan.next.clone()))
            .collect();
        let mut held_back = HashSet::new();
        if changes.is_empty() {
            return Ok(held_back);
        }
        for (id, outcome) in self.pool.store_control(lease, changes).await? {
            match outcome {
                Outcome::Applied => report.counts.changed += 1,
                Outcome::Stale => {
                    report.counts.stale += 1;
                    held_back.insert(id);
                }
                Outcome::Missing => {
                    held_back.insert(id);
                }
            }
        }
        if report.counts.changed > 0 {
            self.hints.publish(Channel::Watch);
        }
        if report.counts.stale > 0 {
            self.dispatcher.ring();
        }
        Ok(held_back)
    }

    async fn recover(&self, lease: &Lease, recovery: Recovery) -> Result<(), PassError> {
        let Recovery { id, accept, actor } = recovery;
        let Some(record) = self.pool.workspace(id).await? else {
            return Err(not_found(id));
        };
        let ws = &record.workspace;
        let detail = format!(
            "from {}; accepted: {}",
            ws.control.error_reason.map_or("?", |r| r.as_str()),
            match &accept {
                None => "nothing".to_owned(),
                Some(Accept::Archive(key)) => format!("archive {key}"),
                Some(Accept::StartEmpty) => "an empty home".to_owned(),
                Some(Accept::AdoptVolume) => "the volume that is there".to_owned(),
            }
        );
        let next = recover::recover(ws, accept)
            .map_err(|e| PassError::Refused(Refusal::Precondition(e.reason()), e.to_string()))?;
        let change = ControlChange::new(ws, next);
        let note = RecoveryNote { actor, detail };
        match self.pool.store_recovery(lease, change, note).await? {
            Outcome::Applied => Ok(()),
            Outcome::Stale => Err(PassError::Refused(
                Refusal::Stale,
                "the workspace changed meanwhile; try again".to_owned(),
            )),
            Outcome::Missing => Err(not_found(id)),
        }
    }
}

fn not_found(id: WorkspaceId) -> PassError {
    PassError::Refused(Refusal::NotFound, format!("no workspace {id}"))
}
