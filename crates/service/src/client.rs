//! Calling another service: a lazily connecting channel that finds out when its peer is gone, and the
//! token on every call, and the trace of the caller where there is one.
//!
//! A channel is made once and kept: it reconnects by itself. Calls have no deadline of their own; set
//! one on each request (`Request::set_timeout`), which the server then keeps too.

mod traced;

use std::fmt;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::secret::Secret;
pub use traced::Traced;

/// How long a connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an open connection is probed, idle or not.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a probe may stay unanswered before the connection counts as lost.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client is built on: `FooServiceClient::new(connect(addr, token)?)`.
pub type AuthChannel = Traced<InterceptedService<Channel, ClientAuth>>;

/// Why a channel could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("not an address of a gRPC server: {0:?}; use http://host:port or host:port")]
    Address(String),
    /// The token cannot stand in a header.
    #[error("the token holds characters that cannot stand in a header")]
    Token,
}

/// A channel to `address` (`host:port` or `http://host:port`). Connects with the first call.
///
/// # Errors
/// When the address does not parse; nothing is connected here.
pub fn channel(address: &str) -> Result<Channel, ClientError> {
    Ok(endpoint(address)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// Whether [`channel`] would take it.
pub(crate) fn check_address(address: &str) -> Result<(), ClientError> {
    endpoint(address).map(drop)
}

fn endpoint(address: &str) -> Result<Endpoint, ClientError> {
    let uri = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    Endpoint::from_shared(uri)
        .ok()
        .filter(|endpoint| {
            endpoint.uri().scheme_str() == Some("http") && endpoint.uri().host().is_some()
        })
        .ok_or_else(|| ClientError::Address(address.to_owned()))
}

/// [`channel`] with a token on every call, and `traceparent` on calls made within a trace.
///
/// # Errors
/// When the address or the token cannot be one.
pub fn connect(address: &str, token: &Secret) -> Result<AuthChannel, ClientError> {
    let auth = ClientAuth::new(token)?;
    let inner = InterceptedService::new(channel(address)?, auth);
    Ok(Traced::new(inner))
}

/// Adds `authorization: Bearer <token>` to every call.
#[derive(Clone)]
pub struct ClientAuth {
    header: MetadataValue<Ascii>,
}

impl ClientAuth {
    /// An interceptor with this token.
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn new(token: &Secret) -> Result<Self, ClientError> {
        let mut header: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
            .parse()
            .map_err(|_| ClientError::Token)?;
        header.set_sensitive(true);
        Ok(Self { header })
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAuth([redacted])")
    }
}

impl Interceptor for ClientAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.header.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses() {
        for good in [
            "127.0.0.1:7401",
            "http://127.0.0.1:7401",
            "agent:7401",
            "[::1]:7401",
        ] {
            assert!(channel(good).is_ok(), "{good}");
        }
        for bad in ["", "ftp://x:1", "https://x:1", "a b:1", "http://"] {
            assert!(channel(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_added_and_not_printed() {
        let mut auth = ClientAuth::new(&Secret::new("s3cret")).unwrap();
        assert!(!format!("{auth:?}").contains("s3cret"));
        let request = auth.call(Request::new(())).unwrap();
        assert_eq!(
            request.metadata().get("authorization").unwrap(),
            "Bearer s3cret"
        );
        assert!(!format!("{request:?}").contains("s3cret"));
        assert!(ClientAuth::new(&Secret::new("a\nb")).is_err());
    }
}
