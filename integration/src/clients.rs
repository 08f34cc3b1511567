//! gRPC clients.

use tonic::transport::Channel;
use windlass_proto::v1::{
    GetHostRequest, GetStatusRequest, ListHostsRequest, agent_service_client::AgentServiceClient,
    gc_service_client::GcServiceClient, host_service_client::HostServiceClient,
    observer_service_client::ObserverServiceClient, ttl_service_client::TtlServiceClient,
    wc_service_client::WcServiceClient, workspace_service_client::WorkspaceServiceClient,
};
use windlass_service::{AuthChannel, Secret};

use crate::{Name, World};

/// A client of the workspaces.
pub type Workspaces = WorkspaceServiceClient<AuthChannel>;

impl World {
    fn channel(&self, name: Name) -> AuthChannel {
        windlass_service::connect(&self.address(name), &Secret::from(self.token.as_str()))
            .expect("a loopback address")
    }

    /// A channel without a token.
    pub fn anonymous(&self, name: Name) -> Channel {
        windlass_service::channel(&self.address(name)).expect("a loopback address")
    }

    /// The api as the admin.
    pub fn workspaces(&self) -> Workspaces {
        WorkspaceServiceClient::new(self.channel(Name::Api))
    }

    /// The api as the user of this token.
    pub fn workspaces_as(&self, token: &str) -> Workspaces {
        let channel = windlass_service::connect(&self.address(Name::Api), &Secret::from(token));
        WorkspaceServiceClient::new(channel.expect("a loopback address"))
    }

    /// Hosts, as the admin.
    pub fn hosts(&self) -> HostServiceClient<AuthChannel> {
        HostServiceClient::new(self.channel(Name::Api))
    }

    /// The agent.
    pub fn agent(&self) -> AgentServiceClient<AuthChannel> {
        AgentServiceClient::new(self.channel(Name::Agent))
    }

    /// The observer.
    pub fn observer(&self) -> ObserverServiceClient<AuthChannel> {
        ObserverServiceClient::new(self.channel(Name::Observer))
    }

    /// The workspace controller.
    pub fn wc(&self) -> WcServiceClient<AuthChannel> {
        WcServiceClient::new(self.channel(Name::Wc))
    }

    /// The workspace controller that listens there.
    pub fn wc_at(&self, address: &str) -> WcServiceClient<AuthChannel> {
        let token = Secret::from(self.token.as_str());
        let channel = windlass_service::connect(address, &token).expect("a loopback address");
        WcServiceClient::new(channel)
    }

    /// The TTL runner.
    pub fn ttl(&self) -> TtlServiceClient<AuthChannel> {
        TtlServiceClient::new(self.channel(Name::Ttl))
    }

    /// The garbage collector.
    pub fn gc(&self) -> GcServiceClient<AuthChannel> {
        GcServiceClient::new(self.channel(Name::Gc))
    }

    /// Any call that a service answers at once.
    pub async fn ask(&self, name: Name) {
        let status = || GetStatusRequest {};
        let answered = match name {
            Name::Api => self.hosts().list_hosts(ListHostsRequest {}).await.map(drop),
            Name::Agent => self.agent().get_host(GetHostRequest {}).await.map(drop),
            Name::Observer => self.observer().get_status(status()).await.map(drop),
            Name::Wc => self.wc().get_status(status()).await.map(drop),
            Name::Ttl => self.ttl().get_status(status()).await.map(drop),
            Name::Gc => self.gc().get_status(status()).await.map(drop),
        };
        answered.expect("an answer");
    }
}
