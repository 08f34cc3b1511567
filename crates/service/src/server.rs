//! The gRPC server every service shares: reflection, health, limits, and a stop that ends.
//!
//! Invariants: every call ends with a grpc-status, whatever its handler does; every call but health and
//! reflection is authenticated; stopping takes at most the drain timeout, after which what is left is
//! cut (hyper can wait for ever on an idle connection).

mod accept;
mod guard;
mod limit;
mod methods;
mod record;

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::{Service, ServiceBuilder};

use crate::auth::{self, Authenticator};
use crate::config::ServerArgs;
use crate::readiness::Readiness;
pub use guard::grpc_timeout;
use methods::{Method, Methods};

/// Largest message a server receives, tonic's default; services may set less or more per service
/// (`max_decoding_message_size`). Larger answers are to be streamed in chunks.
pub const MAX_RECEIVE_BYTES: usize = 4 * 1024 * 1024;

/// The name under which health tells whether the process can do its work, for readiness probes. The health of
/// everything else changes when it drains only: a database that is away must not get it restarted.
pub const READINESS: &str = "readiness";

/// How often an open connection is probed, and how long a probe may stay unanswered.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// When a connection is asked to end so that clients spread over replicas; calls in flight finish.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// Calls in progress on one connection.
const MAX_CONCURRENT_STREAMS: u32 = 256;
/// Request headers of one call.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Why a server could not be started or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The descriptor set does not decode: a fault of the build.
    #[error("descriptor set: {0}")]
    Descriptors(String),
    /// The listener or the transport failed.
    #[error("gRPC server")]
    Transport(#[from] tonic::transport::Error),
    /// The listener's address could not be read.
    #[error("gRPC listener")]
    Listener(#[from] std::io::Error),
}

/// A server being put together. Services are added, then [`serve`](Self::serve) runs it.
pub struct GrpcServer {
    descriptors: &'static [u8],
    authenticator: Arc<dyn Authenticator>,
    routes: Routes,
    names: Vec<&'static str>,
    long_lived: Vec<String>,
    starts_traces: bool,
    readiness: Option<Readiness>,
    request_timeout: Duration,
    drain_timeout: Duration,
    max_concurrent_requests: usize,
}

impl std::fmt::Debug for GrpcServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcServer")
            .field("services", &self.names)
            .finish_non_exhaustive()
    }
}

impl GrpcServer {
    /// A server without services yet. `descriptors` is the encoded FileDescriptorSet of all of them.
    pub fn new(
        descriptors: &'static [u8],
        authenticator: Arc<dyn Authenticator>,
        args: &ServerArgs,
    ) -> Self {
        Self {
            descriptors,
            authenticator,
            routes: Routes::default(),
            names: Vec::new(),
            long_lived: Vec::new(),
            starts_traces: false,
            readiness: None,
            request_timeout: args.request_timeout,
            drain_timeout: args.drain_timeout,
            max_concurrent_requests: args.max_concurrent_requests,
        }
    }

    /// Adds a service; health reports it by its fully qualified name.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Names a method (`windlass.v1.FooService/Follow`) that lives as long as its client: no default
    /// deadline, and ended with UNAVAILABLE when draining begins. Server-streaming methods whose name
    /// begins with `Watch` are known.
    #[must_use]
    pub fn long_lived(mut self, method: impl Into<String>) -> Self {
        self.long_lived.push(method.into());
        self
    }

    /// A call that comes without a trace begins one, streams without end and health excepted. For servers
    /// that users call.
    #[must_use]
    pub fn starts_traces(mut self) -> Self {
        self.starts_traces = true;
        self
    }

    /// Health tells of this readiness under the name [`READINESS`].
    #[must_use]
    pub fn tells_readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = Some(readiness);
        self
    }

    /// Serves on a bound listener until `shutdown`, then drains: health says NOT_SERVING, no new
    /// connection is accepted, streams without end are ended, other calls may finish. After the drain
    /// timeout, connections that are left are cut. Dropping the future cuts at once.
    ///
    /// # Errors
    /// When the descriptor set does not decode or the transport fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), ServerError> {
        let methods = Methods::new(self.descriptors, &self.long_lived)?;
        let health = HealthReporter::new();
        for name in &self.names {
            health
                .set_service_status(name, ServingStatus::Serving)
                .await;
        }
        let mut readiness = self.readiness.as_ref().map(Readiness::follow);
        if let Some(ready) = &mut readiness {
            let now = *ready.borrow_and_update();
            health.set_service_status(READINESS, status_of(now)).await;
        }
        let routes = self
            .routes
            .add_service(tonic_health::pb::health_server::HealthServer::new(
                tonic_health::server::HealthService::from_health_reporter(health.clone()),
            ))
            .add_service(
                reflection(self.descriptors, &self.names)
                    .build_v1()
                    .map_err(described)?,
            )
            .add_service(
                reflection(self.descriptors, &self.names)
                    .build_v1alpha()
                    .map_err(described)?,
            );

        let drain = CancellationToken::new();
        // Outermost first: a call comes down this column.
        let stack = ServiceBuilder::new()
            .layer(from_fn_with_state(Arc::new(methods), methods::find))
            .layer(from_fn_with_state(self.starts_traces, record::record))
            .layer(from_fn_with_state(
                limit::Limit::new(self.max_concurrent_requests),
                limit::limit,
            ))
            .layer(from_fn_with_state(
                guard::Bounds::new(self.request_timeout, drain.clone()),
                guard::guard,
            ))
            .layer(from_fn_with_state(self.authenticator, authenticate));
        let routes = Routes::from(routes.prepare().into_axum_router().layer(stack));

        let address = listener.local_addr()?;
        tracing::info!(%address, services = ?self.names, "serving gRPC");
        let cut = CancellationToken::new();
        let _cut_on_drop = cut.clone().drop_guard();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .max_connection_age(MAX_CONNECTION_AGE)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                accept::connections(listener, cut.clone()),
                draining(shutdown.clone(), health, self.names, readiness, drain),
            );
        tokio::select! {
            result = serving => result?,
            () = elapsed_after(&shutdown, self.drain_timeout) => {
                tracing::warn!(%address, "calls or connections outlived the drain timeout: cut");
            }
        }
        tracing::info!(%address, "gRPC stopped");
        Ok(())
    }
}

/// Completes when draining begins; until then health follows readiness. Health changes before streams end, so
/// that a watcher of health hears of it.
async fn draining(
    shutdown: CancellationToken,
    health: HealthReporter,
    names: Vec<&'static str>,
    mut readiness: Option<watch::Receiver<bool>>,
    drain: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            ready = changed(readiness.as_mut()) => {
                health
                    .set_service_status(READINESS, status_of(ready))
                    .await;
            }
        }
    }
    let told = readiness.is_some().then_some(READINESS);
    for name in names.into_iter().chain([""]).chain(told) {
        health
            .set_service_status(name, ServingStatus::NotServing)
            .await;
    }
    drain.cancel();
}

/// The next change of readiness. Never, where none is told.
async fn changed(readiness: Option<&mut watch::Receiver<bool>>) -> bool {
    if let Some(ready) = readiness
        && ready.changed().await.is_ok()
    {
        return *ready.borrow_and_update();
    }
    pending().await
}

fn status_of(ready: bool) -> ServingStatus {
    match ready {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

async fn elapsed_after(shutdown: &CancellationToken, bound: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(bound).await;
}

/// Lists only what is served here, though the descriptor set holds every service.
fn reflection<'a>(descriptors: &'a [u8], names: &[&str]) -> tonic_reflection::server::Builder<'a> {
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
    for name in names.iter().chain(&methods::OPEN_SERVICES) {
        builder = builder.with_service_name(*name);
    }
    builder
}

fn described(error: impl std::fmt::Display) -> ServerError {
    ServerError::Descriptors(error.to_string())
}

/// The innermost layer: nothing below it runs for a caller that is not known.
async fn authenticate(
    State(authenticator): State<Arc<dyn Authenticator>>,
    mut request: Request,
    next: Next,
) -> Response {
    if !Method::of(&request).open {
        match authenticator
            .authenticate(auth::bearer(request.headers()))
            .await
        {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
            }
            Err(status) => return status.into_http(),
        }
    }
    next.run(request).await
}
