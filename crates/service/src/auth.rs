//! Who is calling: `authorization: Bearer <token>` to an [`Identity`] in the request's extensions.
//!
//! Every call is authenticated before the method runs; only health and reflection are open. A server
//! cannot be built without an authenticator, so that none is open by omission.

use std::hint::black_box;

use tonic::Status;
use uuid::Uuid;

use crate::error::{ErrorKind, TOKEN_INVALID, TOKEN_MISSING, internal, refuse};
use crate::secret::Secret;

crate::secret_arg!(
    /// The token that services show each other until all of them have the new one.
    pub PreviousServiceToken, "previous-service-token", "WINDLASS_PREVIOUS_SERVICE_TOKEN",
    "Earlier service token, let in as well while it is replaced"
);

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user, when it is one.
    pub user_id: Option<Uuid>,
    /// For logs and the audit trail.
    pub name: String,
    /// Whether the caller may act on what is not its own.
    pub admin: bool,
    /// Whether the caller is a Windlass service.
    pub service: bool,
}

impl Identity {
    /// The identity the server put into a request.
    ///
    /// # Errors
    /// INTERNAL when the request did not come through a [`GrpcServer`](crate::GrpcServer).
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Self, Status> {
        request
            .extensions()
            .get::<Self>()
            .ok_or_else(|| internal("a request without identity reached a method"))
    }

    /// Refuses callers that are neither admin nor a service.
    ///
    /// # Errors
    /// PERMISSION_DENIED with reason `ADMIN_ONLY`.
    pub fn require_admin(&self) -> Result<(), Status> {
        if self.admin || self.service {
            Ok(())
        } else {
            Err(refuse(
                ErrorKind::PermissionDenied,
                "ADMIN_ONLY",
                "only an admin may do this",
            ))
        }
    }
}

/// Turns a bearer token into an identity.
#[tonic::async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// `bearer` is the token, or `None` when the call has none.
    ///
    /// # Errors
    /// UNAUTHENTICATED for a missing or unknown token ([`missing_token`], [`invalid_token`]);
    /// UNAVAILABLE when it cannot be looked up now.
    async fn authenticate(&self, bearer: Option<&str>) -> Result<Identity, Status>;
}

/// UNAUTHENTICATED: the call has no token.
pub fn missing_token() -> Status {
    refuse(
        ErrorKind::Unauthenticated,
        TOKEN_MISSING,
        "send a token as `authorization: Bearer <token>`",
    )
}

/// UNAUTHENTICATED: the token is not known. Says nothing about why.
pub fn invalid_token() -> Status {
    refuse(
        ErrorKind::Unauthenticated,
        TOKEN_INVALID,
        "the token is not valid",
    )
}

/// One token shared by the services, for calls from one to the other; while it is replaced, two.
#[derive(Debug, Clone)]
pub struct StaticToken {
    token: Secret,
    previous: Option<Secret>,
    identity: Identity,
}

impl StaticToken {
    /// Whoever presents `token` is the service called `name`.
    pub fn new(token: impl Into<Secret>, name: impl Into<String>) -> Self {
        Self {
            token: token.into(),
            previous: None,
            identity: Identity {
                user_id: None,
                name: name.into(),
                admin: false,
                service: true,
            },
        }
    }

    /// Lets `previous` in as well.
    #[must_use]
    pub fn or(mut self, previous: Option<&PreviousServiceToken>) -> Self {
        self.previous = previous.map(|token| Secret::clone(token));
        self
    }
}

#[tonic::async_trait]
impl Authenticator for StaticToken {
    async fn authenticate(&self, bearer: Option<&str>) -> Result<Identity, Status> {
        let bearer = bearer.ok_or_else(missing_token)?;
        let mut known = std::iter::once(&self.token).chain(&self.previous);
        if known.any(|token| same(bearer.as_bytes(), token.expose().as_bytes())) {
            Ok(self.identity.clone())
        } else {
            Err(invalid_token())
        }
    }
}

/// Compares in a time that depends on the lengths only. An empty secret equals nothing.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let difference = given
        .iter()
        .zip(secret)
        .fold(0_u8, |difference, (a, b)| black_box(difference | (a ^ b)));
    given.len() == secret.len() && !secret.is_empty() && difference == 0
}

/// The token of an `authorization` header; the scheme's case does not matter.
pub fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_token_opens() {
        let auth = StaticToken::new("s3cret", "wc");
        let identity = auth.authenticate(Some("s3cret")).await.unwrap();
        assert!(identity.service && identity.name == "wc");
        identity.require_admin().unwrap();
        for wrong in ["", "s3cre", "s3cret ", "S3cret", "s3crets"] {
            let status = auth.authenticate(Some(wrong)).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{wrong:?}");
        }
        assert!(auth.authenticate(None).await.is_err());
        assert!(
            StaticToken::new("", "x")
                .authenticate(Some(""))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn while_it_is_replaced_two_tokens_open() {
        let previous = PreviousServiceToken::from("old");
        let auth = StaticToken::new("new", "wc").or(Some(&previous));
        for token in ["old", "new"] {
            assert!(auth.authenticate(Some(token)).await.is_ok(), "{token}");
        }
        assert!(auth.authenticate(Some("older")).await.is_err());
        let done = StaticToken::new("new", "wc").or(None);
        assert!(done.authenticate(Some("old")).await.is_err());
    }

    #[test]
    fn the_header_is_read_as_http_says() {
        let parse = |value: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(parse("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(parse("bearer  abc").as_deref(), Some("abc"));
        assert_eq!(parse("Basic abc"), None);
        assert_eq!(parse("Bearer "), None);
        assert_eq!(parse("abc"), None);
    }

    #[test]
    fn a_user_is_not_an_admin() {
        let user = Identity {
            user_id: Some(Uuid::nil()),
            name: "u".into(),
            admin: false,
            service: false,
        };
        assert_eq!(
            user.require_admin().unwrap_err().code(),
            tonic::Code::PermissionDenied
        );
    }
}
