//! ObserverService.

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
        Ok(Response::new(self.0.run_now(()).await?))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.0.status().into()))
    }
}
