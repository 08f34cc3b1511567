//! One pass: load rows, reconcile each with the pure planner, store what changed, and only then call
//! agents. Every change is a compare-and-set; a row that somebody changed meanwhile is planned anew by the
//! next pass, and no call is made for it.

use std::collections::{HashMap, HashSet};

use windlass_coordinator::{Channel, Hints, Lease, Pass, PassError, Refusal, Verdict};
use windlass_db::{
    Pool, WorkspaceRecord,
    write::wc::{ControlChange, Outcome, RecoveryNote},
};
use windlass_domain::{
    HostId, OpId, Operation, Phase, Policy, WorkspaceId,
    planner::{self, Call, Context},
    recover::{self, Accept},
};
use windlass_proto::v1::ReconcileResponse;

use crate::{
    account::Account,
    dispatch::{CallFailure, Dispatcher},
};

/// What somebody asks of a pass.
#[derive(Debug, Default)]
pub enum Request {
    /// Every workspace.
    #[default]
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
    policy: Policy,
    account: Account,
}

impl Reconcile {
    /// A pass by these numbers.
    pub fn new(pool: Pool, hints: Hints, dispatcher: Dispatcher, policy: Policy) -> Self {
        Self {
            pool,
            hints,
            dispatcher,
            policy,
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
        let only = match request {
            Request::All => None,
            Request::One(id) => Some(id),
            Request::Recover(recovery) => {
                let id = recovery.id;
                self.recover(lease, recovery).await?;
                Some(id)
            }
        };

        // Load.
        let mut failures = self.dispatcher.failures();
        let mut records = self.pool.living_workspaces_of(lease.shard).await?;
        let addresses = self.addresses().await?;
        let now = self.pool.now().await?;
        self.account.begin();
        self.account.census(lease.shard, &records, now);
        if let Some(id) = only {
            records.retain(|r| r.workspace.id == id);
            if records.is_empty() {
                return Err(not_found(id));
            }
        }

        // Decide.
        let mut changes = Vec::new();
        let mut calls = Vec::new();
        for record in &records {
            let ws = &record.workspace;
            let cx = Context {
                fresh: &record.fresh,
                policy: &self.policy,
                now,
                new_op: OpId(uuid::Uuid::new_v4()),
            };
            let (next, call) = decide(record, &cx, failures.remove(&ws.id));
            let span = self.account.decided(record, &next, now);
            if let Some(call) = call {
                calls.push((record, call, span));
            }
            if next != ws.control {
                changes.push(ControlChange::new(ws, next));
            }
        }

        // Act.
        let mut report = Report {
            counts: ReconcileResponse {
                workspaces: records.len() as u32,
                ..ReconcileResponse::default()
            },
            phase: None,
        };
        let held_back = self.store(lease, changes, &mut report).await?;
        self.account.stored(&held_back);
        for (record, call, span) in calls {
            let id = record.workspace.id;
            let Some(address) = addresses.get(&record.workspace.host_id) else {
                continue;
            };
            if !held_back.contains(&id) && self.dispatcher.call(address, record, call, lease, span)
            {
                report.counts.calls += 1;
            }
        }
        if let Some(id) = only {
            report.phase = self
                .pool
                .workspace(id)
                .await?
                .map(|r| r.workspace.control.phase);
        }
        Ok(Verdict {
            active: report.counts.changed > 0 || records.iter().any(in_progress),
            report,
        })
    }

    fn over(&mut self, lease: &Lease) {
        self.account.over(lease.shard);
    }
}

/// The next control columns and the call to make once they are stored.
fn decide(
    record: &WorkspaceRecord,
    cx: &Context,
    failure: Option<CallFailure>,
) -> (windlass_domain::Control, Option<Call>) {
    let ws = &record.workspace;
    let failed =
        failure.and_then(|f| planner::record_failure(ws, cx, f.op_id, f.attempt, f.failure));
    match failed {
        Some(next) => (next, None),
        None => {
            let plan = planner::reconcile(ws, cx);
            (plan.next, plan.call)
        }
    }
}

impl Reconcile {
    async fn addresses(&self) -> Result<HashMap<HostId, String>, PassError> {
        let hosts = self.pool.hosts().await?;
        Ok(hosts.into_iter().map(|h| (h.id, h.address)).collect())
    }

    /// Stores changes. Returns the workspaces whose change was not stored: nothing is called for them.
    async fn store(
        &self,
        lease: &Lease,
        changes: Vec<ControlChange>,
        report: &mut Report,
    ) -> Result<HashSet<WorkspaceId>, PassError> {
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
            self.hints.publish(Channel::Watch).await;
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

fn in_progress(record: &WorkspaceRecord) -> bool {
    record.workspace.control.operation != Operation::None
}

fn not_found(id: WorkspaceId) -> PassError {
    PassError::Refused(Refusal::NotFound, format!("no workspace {id}"))
}
