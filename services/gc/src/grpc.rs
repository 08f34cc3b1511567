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
        let collected = self.handle.run_now(request).await?;
        Ok(Response::new(GcServiceRunOnceResponse {
            pass: Some(pass(collected.plan)),
            deleted_keys: collected.deleted,
            aborted_uploads: collected.aborted_uploads,
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
    let items: Vec<GcItem> = plan
        .items
        .into_iter()
        .filter_map(|(group, verdict)| item(group, verdict))
        .collect();
    GcPass {
        protected_count: (total - items.len()) as u32,
        total_count: total as u32,
        refusal: plan.refusal.unwrap_or_default(),
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
