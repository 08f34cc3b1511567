//! TtlService.

use chrono::{TimeDelta, Utc};
use tonic::{Request, Response, Status};
use windlass_coordinator::Handle;
use windlass_domain::WorkspaceId;
use windlass_proto::{
    convert::{self, InvalidField},
    v1::{
        GetStatusRequest, GetStatusResponse, RecordActivityRequest, RecordActivityResponse,
        TtlServiceRunOnceRequest, TtlServiceRunOnceResponse, ttl_service_server::TtlService,
    },
};
use windlass_service::{ErrorKind, error::refuse, invalid_argument};

use crate::{
    activity::{Activity, Buffer},
    tick::Expire,
};

const MAX_ACTIVITIES: usize = 10_000;
/// How far a client's clock may be ahead.
const MAX_AHEAD: TimeDelta = TimeDelta::minutes(5);

/// The service, answering from the loop and the buffer.
#[derive(Debug)]
pub struct Grpc {
    pub handle: Handle<Expire>,
    pub buffer: Buffer,
}

#[tonic::async_trait]
impl TtlService for Grpc {
    async fn record_activity(
        &self,
        request: Request<RecordActivityRequest>,
    ) -> Result<Response<RecordActivityResponse>, Status> {
        let activities = activities(&request.into_inner())
            .map_err(|e| invalid_argument(&e.field, e.description))?;
        self.buffer.record(&activities).await.map_err(|error| {
            tracing::warn!(%error, "activity was not recorded");
            let message = "the activity buffer cannot be reached; try again";
            refuse(ErrorKind::Unavailable, "BUFFER_UNAVAILABLE", message)
        })?;
        if !self.buffer.is_shared() {
            // Only the leader folds activity in, and this process' buffer is its own.
            self.handle.run_now(()).await?;
        }
        Ok(Response::new(RecordActivityResponse {
            recorded: activities.len() as u32,
        }))
    }

    async fn run_once(
        &self,
        _request: Request<TtlServiceRunOnceRequest>,
    ) -> Result<Response<TtlServiceRunOnceResponse>, Status> {
        Ok(Response::new(self.handle.run_now(()).await?))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.handle.status().into()))
    }
}

fn activities(request: &RecordActivityRequest) -> Result<Vec<Activity>, InvalidField> {
    if request.activities.len() > MAX_ACTIVITIES {
        return Err(InvalidField::new("activities", "must be at most 10000"));
    }
    let now = Utc::now();
    request
        .activities
        .iter()
        .enumerate()
        .map(|(i, activity)| {
            let field = |name| format!("activities[{i}].{name}");
            let id = convert::uuid(&field("workspace_id"), &activity.workspace_id)?;
            let at = match &activity.time {
                Some(time) => convert::time(&field("time"), time)?,
                None => now,
            };
            if at > now + MAX_AHEAD {
                return Err(InvalidField::new(field("time"), "is more than 5 min ahead"));
            }
            Ok((WorkspaceId(id), at))
        })
        .collect()
}
