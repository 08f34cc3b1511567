//! The gRPC clients: one channel per server, connected with the first call, the token on every call, and
//! a deadline on every call that is no stream.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use windlass_proto::v1::agent_service_client::AgentServiceClient;
use windlass_proto::v1::gc_service_client::GcServiceClient;
use windlass_proto::v1::host_service_client::HostServiceClient;
use windlass_proto::v1::observer_service_client::ObserverServiceClient;
use windlass_proto::v1::ttl_service_client::TtlServiceClient;
use windlass_proto::v1::wc_service_client::WcServiceClient;
use windlass_proto::v1::workspace_service_client::WorkspaceServiceClient;

use crate::error::CliError;
use crate::settings::Settings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 1,000 workspaces with long descriptions and messages is a few MiB.
const MAX_MESSAGE: usize = 64 << 20;

/// A channel with the token on every call.
pub type AuthChannel = InterceptedService<Channel, Auth>;

/// Adds the token.
#[derive(Clone)]
pub struct Auth(MetadataValue<Ascii>);

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Makes clients.
#[derive(Clone)]
pub struct Client {
    settings: Settings,
}

/// A message with the usual deadline.
pub fn request<T>(message: T) -> Request<T> {
    request_within(message, CALL_TIMEOUT)
}

/// A message with a deadline.
pub fn request_within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

macro_rules! service_clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident at $address:ident;)+) => {
        $($(#[$doc])*
        pub fn $name(&self) -> Result<$client<AuthChannel>, CliError> {
            let channel = self.internal(&self.settings.$address)?;
            Ok($client::new(channel).max_decoding_message_size(MAX_MESSAGE))
        })+
    };
}

impl Client {
    /// Nothing is connected here.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Where everything is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The api's workspaces.
    pub fn workspaces(&self) -> Result<WorkspaceServiceClient<AuthChannel>, CliError> {
        let client = WorkspaceServiceClient::new(self.api()?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE))
    }

    /// The api's hosts.
    pub fn hosts(&self) -> Result<HostServiceClient<AuthChannel>, CliError> {
        let client = HostServiceClient::new(self.api()?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE))
    }

    service_clients! {
        /// The observer.
        observer: ObserverServiceClient at observer;
        /// The workspace controller.
        wc: WcServiceClient at wc;
        /// The TTL runner.
        ttl: TtlServiceClient at ttl;
        /// The garbage collector.
        gc: GcServiceClient at gc;
    }

    /// An agent anywhere.
    pub fn agent(&self, address: &str) -> Result<AgentServiceClient<AuthChannel>, CliError> {
        Ok(AgentServiceClient::new(self.internal(address)?))
    }

    /// An error of the api.
    pub fn api_error(&self) -> impl Fn(Status) -> CliError + '_ {
        |status| CliError::from_status(&status, "api", &self.settings.api)
    }

    fn api(&self) -> Result<AuthChannel, CliError> {
        let token = self.settings.token.as_deref().ok_or_else(|| {
            CliError::Usage(
                "no token: set WINDLASS_TOKEN, or run this below the folder where `./dev up` runs \
                 (its .windlass/env is read)"
                    .to_owned(),
            )
        })?;
        connect(&self.settings.api, token)
    }

    fn internal(&self, address: &str) -> Result<AuthChannel, CliError> {
        let token = self.settings.service_token.as_deref().ok_or_else(|| {
            CliError::Usage(
                "no service token: set WINDLASS_SERVICE_TOKEN, or run this below the folder where \
                 `./dev up` runs"
                    .to_owned(),
            )
        })?;
        connect(address, token)
    }
}

fn connect(address: &str, token: &str) -> Result<AuthChannel, CliError> {
    let bad = || CliError::Usage(format!("{address:?} is no address: use http://host:port"));
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| bad())?;
    if endpoint.uri().scheme_str() != Some("http") || endpoint.uri().host().is_none() {
        return Err(bad());
    }
    let mut header: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| CliError::Usage("the token holds characters that no token has".to_owned()))?;
    header.set_sensitive(true);
    let channel = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_lazy();
    Ok(InterceptedService::new(channel, Auth(header)))
}
