//! GcService.

use tonic::{Request, Response, Status};
use windlass_coordinator::{Handle, RunError};
use windlass_domain::gc::{GcPlan, Group, Verdict};
use windlass_proto::{
    convert,
    v1::{
        GcItem, GcPass, GcServiceRunOnceRequest, GcServiceRunOnceResponse, GcVerdict,
        GetStatusRequest, GetStatusResponse, PlanRequest, PlanResponse,
        gc_service_server::GcService,
    },
};

use crate::tick::{self, Collect};

/// Items, and keys, that an answer names at most: a client takes 4 MiB.
const MOST: usize = 5_000;

/// The service. Plans are made on the spot, passes by the loop.
#[derive(Debug)]
pub struct Grpc {
    pub handle: Handle<Collect>,
    pub collect: Collect,
}

#[tonic::async_trait]
impl GcService for Grpc {
    async fn plan(&self, _request: Request<PlanRequest>) -> Result<Response<PlanResponse>, Status> {
        let (_, plan) = self.collect.plan(false).await.map_err(RunError::from)?;
        Ok(Response::new(PlanResponse {
            pass: Some(pass(plan)),
        }))
    }

    async fn run_once(
        &self,
        request: Request<GcServiceRunOnceRequest>,
    ) -> Result<Response<GcServiceRunOnceResponse>, Status> {
        let request = tick::Request {
            override_breaker: request.into_inner().override_breaker,
        };
        let mut collected = self.handle.run_now(request).await?;
        let deleted_count = collected.deleted.len() as u32;
        collected.deleted.truncate(MOST);
        Ok(Response::new(GcServiceRunOnceResponse {
            pass: Some(pass(collected.plan)),
            deleted_keys: collected.deleted,
            aborted_uploads: collected.aborted_uploads,
            deleted_count,
        }))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.handle.status().into()))
    }
}

fn pass(plan: GcPlan) -> GcPass {
    let total = plan.items.len();
    let items = plan.items.into_iter();
    let items = items.filter_map(|(group, verdict)| item(group, verdict));
    let (mut items, others): (Vec<_>, Vec<_>) =
        items.partition(|item| item.verdict() == GcVerdict::Delete);
    let due = items.len();
    items.extend(others);
    let orphans = items.len();
    items.truncate(MOST);
    GcPass {
        protected_count: (total - orphans) as u32,
        total_count: total as u32,
        refusal: plan.refusal.unwrap_or_default(),
        due_count: due as u32,
        truncated: items.len() < orphans,
        items,
    }
}

fn item(group: Group, verdict: Verdict) -> Option<GcItem> {
    let (verdict, why, first_seen, due) = match verdict {
        Verdict::Protected(_) => return None,
        Verdict::Waiting {
            why,
            first_seen,
            due,
            unknown: false,
        } => (GcVerdict::Waiting, why, first_seen, due),
        Verdict::Waiting {
            why,
            first_seen,
            due,
            unknown: true,
        } => (GcVerdict::Unknown, why, first_seen, due),
        Verdict::Delete { why, first_seen } => (GcVerdict::Delete, why, first_seen, first_seen),
    };
    Some(GcItem {
        keys: group.keys,
        workspace_id: group.workspace.map(|w| w.to_string()).unwrap_or_default(),
        verdict: verdict.into(),
        why: why.to_owned(),
        first_seen_time: Some(convert::timestamp(first_seen)),
        due_time: Some(convert::timestamp(due)),
        bytes: group.bytes,
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use windlass_domain::gc::GroupKind;

    use super::*;

    #[test]
    fn an_answer_names_what_goes_first_and_says_if_it_is_not_all() {
        let first_seen = DateTime::UNIX_EPOCH;
        let items = |verdict: Verdict, count: usize| {
            let group = Group {
                name: "n".to_owned(),
                keys: Vec::new(),
                workspace: None,
                op: None,
                kind: GroupKind::Loose,
                bytes: 1,
                written_at: first_seen,
            };
            std::iter::repeat_n((group, verdict), count)
        };
        let waiting = Verdict::Waiting {
            why: "w",
            first_seen,
            due: first_seen,
            unknown: false,
        };
        let delete = Verdict::Delete {
            why: "d",
            first_seen,
        };
        let plan = |count| GcPlan {
            items: items(Verdict::Protected("p"), 3)
                .chain(items(waiting.clone(), count))
                .chain(items(delete.clone(), 2))
                .collect(),
            refusal: None,
        };
        let small = pass(plan(4));
        assert_eq!((small.items.len(), small.truncated), (6, false));
        assert_eq!((small.due_count, small.protected_count), (2, 3));
        let large = pass(plan(MOST));
        assert_eq!((large.items.len(), large.truncated), (MOST, true));
        assert_eq!((large.due_count, large.protected_count), (2, 3));
        assert_eq!(large.total_count as usize, MOST + 5);
        let mut first = large.items[..2].iter().map(GcItem::verdict);
        assert!(first.all(|verdict| verdict == GcVerdict::Delete));
    }
}
