//! One pass: load what the store holds and what the rows need, plan, remember what was seen, and delete
//! what is due. Nothing is deleted unless everything could be loaded; and immediately before deleting,
//! the rows are asked once more.

use std::sync::Arc;

use chrono::TimeDelta;
use tonic::Status;
use windlass_coordinator::{AgentClient, Agents, Lease, Pass, PassError, Verdict};
use windlass_db::Pool;
use windlass_domain::gc::{self, GcPlan, GcPolicy, Group};
use windlass_proto::{convert, v1::DeleteArchivesRequest};

use crate::store;

/// Keys that one call deletes at most.
const BATCH: usize = 1000;

/// gc's pass.
#[derive(Clone, Debug)]
pub struct Collect {
    pub pool: Pool,
    pub agents: Arc<Agents>,
    pub policy: GcPolicy,
    pub upload_grace: TimeDelta,
}

/// What somebody asks of a pass.
#[derive(Debug, Default)]
pub struct Request {
    /// Delete even if that is more than the breaker allows.
    pub override_breaker: bool,
}

/// What a pass did.
#[derive(Debug)]
pub struct Collected {
    /// What was decided.
    pub plan: GcPlan,
    /// Keys that are gone.
    pub deleted: Vec<String>,
    /// Multipart uploads that were aborted.
    pub aborted_uploads: u32,
}

impl Pass for Collect {
    type Request = Request;
    type Report = Collected;

    async fn pass(
        &mut self,
        lease: &Lease,
        request: Request,
    ) -> Result<Verdict<Collected>, PassError> {
        let (agent, plan) = self.plan(request.override_breaker).await?;
        let orphans = plan.orphans().map(|g| g.name.clone()).collect();
        self.pool.store_sightings(lease, orphans).await?;
        if let Some(why) = &plan.refusal {
            tracing::warn!(why, "this pass deletes nothing");
            let detail = format!("nothing was deleted: {why}");
            self.pool.audit_gc(lease, "gc.refuse", detail).await?;
        }
        let (deleted, aborted_uploads) = self.delete(lease, agent, &plan, &request).await?;
        metrics::counter!("windlass_gc_deleted_objects_total").increment(deleted.len() as u64);
        account(&plan);
        Ok(Verdict {
            report: Collected {
                plan,
                deleted,
                aborted_uploads,
            },
            active: false,
        })
    }
}

/// What the pass found, by verdict, and whether it refused to delete.
fn account(plan: &GcPlan) {
    let verdict = |wanted: fn(&gc::Verdict) -> bool| {
        let items = plan.items.iter().filter(|(_, verdict)| wanted(verdict));
        items.count() as f64
    };
    let counts = [
        (
            "protected",
            verdict(|v| matches!(v, gc::Verdict::Protected(_))),
        ),
        (
            "waiting",
            verdict(|v| matches!(v, gc::Verdict::Waiting { .. })),
        ),
        ("due", verdict(|v| matches!(v, gc::Verdict::Delete { .. }))),
    ];
    for (verdict, count) in counts {
        metrics::gauge!("windlass_gc_groups", "verdict" => verdict).set(count);
    }
    metrics::gauge!("windlass_gc_refused").set(f64::from(u8::from(plan.refusal.is_some())));
}

impl Collect {
    /// What a pass would do now, and the agent it would do it through.
    pub async fn plan(&self, override_breaker: bool) -> Result<(AgentClient, GcPlan), PassError> {
        let (agent, groups) = self.list().await?;
        let rows = self.pool.gc_rows().await?;
        let sightings = self.pool.sightings().await?;
        let now = self.pool.now().await?;
        let plan = gc::plan(
            groups,
            &rows,
            &sightings,
            &self.policy,
            override_breaker,
            now,
        );
        Ok((agent, plan))
    }

    /// The store as any one agent lists it: all share it.
    async fn list(&self) -> Result<(AgentClient, Vec<Group>), PassError> {
        let mut why = "no host is registered".to_owned();
        for host in self.pool.hosts().await? {
            let agent = match self.agents.client(&host.address) {
                Ok(agent) => agent,
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            match store::groups(agent.clone()).await {
                Ok(groups) => return Ok((agent, groups)),
                Err(status) => why = format!("{}: {}", host.name, status.message()),
            }
        }
        Err(PassError::Unavailable(format!(
            "the archive store could not be listed: {why}"
        )))
    }

    async fn delete(
        &self,
        lease: &Lease,
        mut agent: AgentClient,
        plan: &GcPlan,
        request: &Request,
    ) -> Result<(Vec<String>, u32), PassError> {
        let doomed: Vec<&Group> = plan.doomed().collect();
        let (mut deleted, mut aborted) = (Vec::new(), 0);
        // Of at least one batch, so that stale uploads are aborted even if nothing is due.
        let mut batches: Vec<&[&Group]> = doomed.chunks(BATCH / 2).collect();
        if batches.is_empty() {
            batches.push(&[]);
        }
        for batch in batches {
            let keys = self.still_doomed(batch).await?;
            if !keys.is_empty() {
                let override_note = if request.override_breaker {
                    " (breaker overridden)"
                } else {
                    ""
                };
                let detail = format!("deleting{override_note}: {}", keys.join(", "));
                self.pool.audit_gc(lease, "gc.delete", detail).await?;
            }
            let answer = agent
                .delete_archives(DeleteArchivesRequest {
                    epoch: lease.epoch.0,
                    keys,
                    abort_uploads_older_than: Some(convert::duration(self.upload_grace)),
                })
                .await
                .map_err(|s: Status| PassError::Unavailable(s.message().to_owned()))?
                .into_inner();
            for (key, why) in &answer.failed_keys {
                tracing::warn!(key, why, "not deleted; the next pass tries again");
            }
            deleted.extend(answer.deleted_keys);
            aborted += answer.aborted_uploads;
        }
        Ok((deleted, aborted))
    }

    /// The keys of those groups that no row needs by now either.
    async fn still_doomed(&self, batch: &[&Group]) -> Result<Vec<String>, PassError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.pool.gc_rows().await?;
        let now = self.pool.now().await?;
        let rows = gc::by_id(&rows);
        let unneeded = |g: &Group| !gc::is_needed(g, &rows, &self.policy, now);
        Ok(batch
            .iter()
            .filter(|g| unneeded(g))
            .flat_map(|g| g.keys.clone())
            .collect())
    }
}
