//! One pass: look at the rows that need attention, plan each, store what changed, and only then call agents.
//! Every change is a compare-and-set; a row that somebody changed meanwhile is planned anew by the next
//! pass, and no call is made for it. With nothing to do a pass is one query.

use std::collections::HashSet;

use tracing::Span;
use windlass_coordinator::{Channel, Hints, Lease, Pass, PassError, Refusal, Verdict};
use windlass_db::{
    Pool,
    read::Scope,
    write::wc::{ControlChange, Outcome, RecoveryNote},
};
use windlass_domain::{
    Phase, Shard, WorkspaceId,
    recover::{self, Accept},
};
use windlass_proto::v1::ReconcileResponse;

use crate::{
    account::{self, Account},
    dispatch::Dispatcher,
    look::Look,
    memory::Memory,
    plan::{self, Depths, Numbers, Planned, Planner},
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

        // Load and decide.
        let scope = self.memory.scope(lease.epoch, whole, only);
        let whole = scope == Scope::Whole;
        let failures = self.dispatcher.failures();
        self.account.begin();
        let planner = Planner::new(&self.numbers.policy, &failures);
        let looked = Look::at(&self.pool, lease.shard, scope, planner, &mut self.account).await;
        let mut look = match looked {
            Ok(Some(look)) => look,
            Ok(None) => {
                self.dispatcher.put_back(failures.into_iter());
                return self.nobody(lease.shard, whole, only);
            }
            Err(error) => {
                self.dispatcher.put_back(failures.into_iter());
                return Err(error.into());
            }
        };
        let unreadable = u64::try_from(look.seen.unreadable).unwrap_or(u64::MAX);
        metrics::counter!("windlass_wc_unreadable_rows_total").increment(unreadable);
        let depths = plan::queue(&mut look.planned, &self.numbers.places);

        // Act.
        let mut report = Report::default();
        report.counts.workspaces = look.len() as u32;
        let planned = look.planned.iter();
        let spans: Vec<_> = planned
            .map(|p| self.account.decided(&p.record, &p.plan.next, look.seen.now))
            .collect();
        let stored = self.store(lease, &look.planned, &mut report).await;
        // A failure is counted once it is stored.
        let counted = |id: &WorkspaceId| stored.as_ref().is_ok_and(|left| !left.contains(id));
        let lost = failures.into_iter().filter(|(id, _)| !counted(id));
        self.dispatcher.put_back(lost);
        let held_back = stored?;
        self.account.stored(&held_back);
        let counted = look.noted().map(|noted| (noted.id, noted.counted));
        self.account.census(lease.shard, whole, counted);
        account::tell_queue(lease.shard, &depths);
        self.call(lease, &look, spans, &held_back, &mut report);
        let again = look.noted().map(|noted| (noted.id, noted.again));
        self.memory.done(whole, look.seen.token, again);
        if let Some(id) = only {
            let record = self.pool.workspace(id).await?;
            let living = record.filter(|r| r.workspace.control.phase != Phase::Deleted);
            let phase = living.map(|r| r.workspace.control.phase);
            report.phase = Some(phase.ok_or_else(|| not_found(id))?);
        }
        Ok(Verdict {
            active: report.counts.changed > 0
                || look.planned.iter().any(|p| plan::in_progress(&p.plan.next)),
            report,
        })
    }

    fn over(&mut self, lease: &Lease) {
        self.account.over(lease.shard);
    }
}

impl Reconcile {
    /// There is nothing to look at.
    fn nobody(
        &mut self,
        shard: Shard,
        whole: bool,
        only: Option<WorkspaceId>,
    ) -> Result<Verdict<Report>, PassError> {
        self.memory.nothing(whole);
        account::tell_queue(shard, &Depths::default());
        if whole {
            self.account.census(shard, whole, std::iter::empty());
        }
        match only {
            Some(id) => Err(not_found(id)),
            None => Ok(Verdict {
                report: Report::default(),
                active: false,
            }),
        }
    }

    /// Makes the calls of what is stored. Those that are on their way already are not made again.
    fn call(
        &mut self,
        lease: &Lease,
        look: &Look,
        spans: Vec<Option<Span>>,
        held_back: &HashSet<WorkspaceId>,
        report: &mut Report,
    ) {
        for (Planned { record, plan }, span) in look.planned.iter().zip(spans) {
            let ws = &record.workspace;
            let (Some(call), Some(host)) = (&plan.call, look.hosts.get(&ws.host_id)) else {
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
        planned: &[Planned],
        report: &mut Report,
    ) -> Result<HashSet<WorkspaceId>, PassError> {
        let changes: Vec<_> = planned
            .iter()
            .filter(|p| p.plan.next != p.record.workspace.control)
            .map(|p| ControlChange::new(&p.record.workspace, p.plan.next.clone()))
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
