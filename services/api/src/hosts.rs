//! HostService. Listing is open to every user, the rest to admins.

use std::collections::HashMap;

use tonic::{Request, Response, Status};
use windlass_coordinator::{Channel, Hints};
use windlass_db::{HostRecord, Pool};
use windlass_domain::HostId;
use windlass_proto::{
    convert,
    v1::{self, host_service_server::HostService},
};
use windlass_service::Identity;

use crate::{errors, present, validate};

#[derive(Debug)]
pub struct Hosts {
    pool: Pool,
    hints: Hints,
}

impl Hosts {
    pub fn new(pool: Pool, hints: Hints) -> Self {
        Self { pool, hints }
    }

    async fn counts(&self) -> Result<HashMap<HostId, i64>, Status> {
        let counts = self.pool.workspaces_per_host().await;
        Ok(counts.map_err(errors::database)?.into_iter().collect())
    }

    async fn present(&self, host: HostRecord) -> Result<Response<v1::Host>, Status> {
        let count = self.counts().await?.get(&host.id).copied().unwrap_or(0);
        Ok(Response::new(present::host(host, count)))
    }

    async fn cordon(&self, id: &str, cordoned: bool) -> Result<Response<v1::Host>, Status> {
        let id = convert::uuid("id", id).map_err(errors::invalid)?;
        let host = self.pool.cordon_host(HostId(id), cordoned).await;
        match host.map_err(errors::database)? {
            Some(host) => self.present(host).await,
            None => Err(errors::host_not_found()),
        }
    }
}

#[tonic::async_trait]
impl HostService for Hosts {
    async fn register_host(
        &self,
        request: Request<v1::RegisterHostRequest>,
    ) -> Result<Response<v1::Host>, Status> {
        Identity::of(&request)?.require_admin()?;
        let v1::RegisterHostRequest { name, address } = request.into_inner();
        validate::host_name("name", &name).map_err(errors::invalid)?;
        let address = validate::agent_address("address", &address).map_err(errors::invalid)?;
        let host = self.pool.register_host(&name, &address).await;
        let host = host.map_err(errors::database)?;
        self.hints.publish(Channel::Observer);
        self.present(host).await
    }

    async fn list_hosts(
        &self,
        _: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let counts = self.counts().await?;
        let hosts = self.pool.hosts().await.map_err(errors::database)?;
        let hosts = hosts
            .into_iter()
            .map(|host| {
                let count = counts.get(&host.id).copied().unwrap_or(0);
                present::host(host, count)
            })
            .collect();
        Ok(Response::new(v1::ListHostsResponse { hosts }))
    }

    async fn cordon_host(
        &self,
        request: Request<v1::CordonHostRequest>,
    ) -> Result<Response<v1::Host>, Status> {
        Identity::of(&request)?.require_admin()?;
        self.cordon(&request.get_ref().id, true).await
    }

    async fn uncordon_host(
        &self,
        request: Request<v1::UncordonHostRequest>,
    ) -> Result<Response<v1::Host>, Status> {
        Identity::of(&request)?.require_admin()?;
        self.cordon(&request.get_ref().id, false).await
    }
}
