//! WcService.

use tonic::{Request, Response, Status};
use windlass_coordinator::Handle;
use windlass_domain::{WorkspaceId, recover::Accept};
use windlass_proto::{
    convert::{self, InvalidField},
    v1::{
        self, GetStatusRequest, GetStatusResponse, ReconcileRequest, ReconcileResponse,
        RecoverRequest, RecoverResponse, recover_request, wc_service_server::WcService,
    },
};
use windlass_service::invalid_argument;

use crate::tick::{self, Reconcile, Recovery};

/// The service, answering from the loop.
#[derive(Debug)]
pub struct Grpc(pub Handle<Reconcile>);

#[tonic::async_trait]
impl WcService for Grpc {
    async fn reconcile(
        &self,
        request: Request<ReconcileRequest>,
    ) -> Result<Response<ReconcileResponse>, Status> {
        let id = convert::optional_uuid("id", &request.into_inner().id).map_err(invalid)?;
        let Some(id) = id else {
            let passes = self.0.run_led(|| tick::Request::All).await?;
            return Ok(Response::new(together(passes)));
        };
        let request = tick::Request::One(WorkspaceId(id));
        Ok(Response::new(self.0.run_owner(id, request).await?.counts))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        let recovery = recovery(request.into_inner()).map_err(invalid)?;
        let id = recovery.id.0;
        let report = self
            .0
            .run_owner(id, tick::Request::Recover(recovery))
            .await?;
        let phase = report.phase.map_or(v1::Phase::Unspecified, v1::Phase::from);
        Ok(Response::new(RecoverResponse {
            phase: phase.into(),
        }))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.0.status().into()))
    }
}

/// What the passes of several shards did.
fn together(passes: Vec<tick::Report>) -> ReconcileResponse {
    let mut all = ReconcileResponse::default();
    for tick::Report { counts, .. } in passes {
        all.workspaces += counts.workspaces;
        all.changed += counts.changed;
        all.calls += counts.calls;
        all.stale += counts.stale;
    }
    all
}

fn invalid(error: InvalidField) -> Status {
    invalid_argument(&error.field, error.description)
}

fn recovery(request: RecoverRequest) -> Result<Recovery, InvalidField> {
    use recover_request::Accept as Wire;
    let must_be_true = |field| InvalidField::new(field, "must be true when set");
    let accept = match request.accept {
        None => None,
        Some(Wire::ArchiveKey(key)) if key.is_empty() => {
            return Err(InvalidField::new("archive_key", "must not be empty"));
        }
        Some(Wire::ArchiveKey(key)) => Some(Accept::Archive(key)),
        Some(Wire::StartEmpty(true)) => Some(Accept::StartEmpty),
        Some(Wire::AdoptVolume(true)) => Some(Accept::AdoptVolume),
        Some(Wire::StartEmpty(false)) => return Err(must_be_true("start_empty")),
        Some(Wire::AdoptVolume(false)) => return Err(must_be_true("adopt_volume")),
    };
    if request.actor.chars().count() > 128 {
        return Err(InvalidField::new(
            "actor",
            "must have at most 128 characters",
        ));
    }
    let actor = match request.actor.is_empty() {
        true => "operator".to_owned(),
        false => request.actor,
    };
    Ok(Recovery {
        id: WorkspaceId(convert::uuid("id", &request.id)?),
        accept,
        actor,
    })
}
