//! ObserverService.

use prost_types::Duration;
use tonic::{Request, Response, Status};
use windlass_coordinator::Handle;
use windlass_proto::v1::{
    GetStatusRequest, GetStatusResponse, ObserveRequest, ObserveResponse,
    observer_service_server::ObserverService,
};

use crate::tick::Observe;

/// The service, answering from the loop.
#[derive(Debug)]
pub struct Grpc(pub Handle<Observe>);

#[tonic::async_trait]
impl ObserverService for Grpc {
    async fn observe(
        &self,
        _request: Request<ObserveRequest>,
    ) -> Result<Response<ObserveResponse>, Status> {
        let passes = self.0.run_led(|| ()).await?;
        Ok(Response::new(together(passes)))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.0.status().into()))
    }
}

/// What the passes of several shards saw. They are made at the same time: the longest counts.
fn together(passes: Vec<ObserveResponse>) -> ObserveResponse {
    let mut all = ObserveResponse::default();
    for pass in passes {
        all.hosts.extend(pass.hosts);
        all.workspaces += pass.workspaces;
        all.changed += pass.changed;
        let longer = |d: &Duration| (d.seconds, d.nanos);
        if pass.duration.as_ref().map(longer) > all.duration.as_ref().map(longer) {
            all.duration = pass.duration;
        }
    }
    all
}
