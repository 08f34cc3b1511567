//! The one mapping from what went wrong to what a client is told.
//!
//! Every refusal carries a code and a `google.rpc.ErrorInfo` with a reason in UPPER_SNAKE_CASE, so that
//! a client never reads prose. Internal detail is logged here and never sent.

use std::collections::HashMap;
use std::fmt::Display;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of every `ErrorInfo` of Windlass.
pub const ERROR_DOMAIN: &str = "windlass.dev";

/// Reason of [`invalid_argument`]; its metadata `field` names the field.
pub const INVALID_FIELD: &str = "INVALID_FIELD";
/// Reason of [`internal`]; its metadata `incident` is what the log calls it.
pub const INTERNAL: &str = "INTERNAL";
/// Reason when a server has too many calls in progress. Try again later.
pub const OVERLOADED: &str = "OVERLOADED";
/// Reason when a server ends a stream because it is stopping. Resume elsewhere or later.
pub const DRAINING: &str = "DRAINING";
/// Reason when a call took longer than its deadline or the server's limit.
pub const DEADLINE: &str = "DEADLINE";
/// Reason when no bearer token came with the call.
pub const TOKEN_MISSING: &str = "TOKEN_MISSING";
/// Reason when the bearer token is not known.
pub const TOKEN_INVALID: &str = "TOKEN_INVALID";

/// The kinds of failure of Windlass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong whatever the state; the field is named.
    InvalidArgument,
    /// What the request names does not exist (or is not the caller's).
    NotFound,
    /// What the request creates exists.
    AlreadyExists,
    /// The state does not allow it now; repeating alone does not help.
    FailedPrecondition,
    /// Someone else changed it meanwhile (etag); read again and repeat.
    Aborted,
    /// A limit is reached.
    ResourceExhausted,
    /// No token, or an unknown one.
    Unauthenticated,
    /// The token's owner may not do this.
    PermissionDenied,
    /// Something this needs is away; repeating helps.
    Unavailable,
    /// It took too long; whether it happened is not known.
    DeadlineExceeded,
    /// Our fault.
    Internal,
}

impl ErrorKind {
    /// The gRPC code.
    pub const fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::Aborted => Code::Aborted,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Internal => Code::Internal,
        }
    }

    /// Whether the same idempotent call may succeed if repeated after a pause.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Unavailable | Self::DeadlineExceeded | Self::ResourceExhausted => true,
            Self::InvalidArgument
            | Self::NotFound
            | Self::AlreadyExists
            | Self::FailedPrecondition
            | Self::Aborted
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::Internal => false,
        }
    }
}

/// The kind a received status belongs to; codes Windlass never sends count by their nearest meaning.
pub fn kind_of(status: &Status) -> ErrorKind {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition | Code::Unimplemented => ErrorKind::FailedPrecondition,
        Code::Aborted => ErrorKind::Aborted,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        // A connection that breaks in the middle of a call reaches a tonic client as one of these.
        Code::Unavailable | Code::Cancelled | Code::Unknown => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Ok | Code::Internal | Code::DataLoss => ErrorKind::Internal,
    }
}

/// A status with an `ErrorInfo{reason, domain, metadata}`. `message` is for people and may be read by
/// any client: nothing internal in it.
pub fn status<K, V>(
    kind: ErrorKind,
    reason: &str,
    message: impl Into<String>,
    metadata: impl IntoIterator<Item = (K, V)>,
) -> Status
where
    K: Into<String>,
    V: Into<String>,
{
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, ERROR_DOMAIN, collect(metadata));
    Status::with_error_details(kind.code(), message, details)
}

/// As [`status`] without metadata.
pub fn refuse(kind: ErrorKind, reason: &str, message: impl Into<String>) -> Status {
    status::<String, String>(kind, reason, message, [])
}

/// INVALID_ARGUMENT naming the request's field (its path, such as `workspace.name`).
pub fn invalid_argument(field: &str, description: impl Into<String>) -> Status {
    let description = description.into();
    let mut details = ErrorDetails::new();
    details
        .set_error_info(INVALID_FIELD, ERROR_DOMAIN, collect([("field", field)]))
        .add_bad_request_violation(field, description.as_str());
    Status::with_error_details(
        Code::InvalidArgument,
        format!("{field}: {description}"),
        details,
    )
}

/// INTERNAL for a failure of ours: `detail` goes to the log under an incident number, and only that
/// number to the client.
pub fn internal(detail: impl Display) -> Status {
    let incident = uuid::Uuid::new_v4().simple().to_string();
    tracing::error!(%incident, "internal error: {detail:#}");
    status(
        ErrorKind::Internal,
        INTERNAL,
        format!("internal error; the server's log has it as incident {incident}"),
        [("incident", incident)],
    )
}

/// The `ErrorInfo` reason of a received status, if it is one of Windlass.
pub fn reason_of(status: &Status) -> Option<String> {
    status
        .get_details_error_info()
        .filter(|info| info.domain == ERROR_DOMAIN)
        .map(|info| info.reason)
}

/// One value of the `ErrorInfo` metadata of a received status.
pub fn metadata_of(status: &Status, key: &str) -> Option<String> {
    status
        .get_details_error_info()
        .and_then(|mut info| info.metadata.remove(key))
}

fn collect<K: Into<String>, V: Into<String>>(
    metadata: impl IntoIterator<Item = (K, V)>,
) -> HashMap<String, String> {
    metadata
        .into_iter()
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_wire() {
        let sent = status(
            ErrorKind::FailedPrecondition,
            "VOLUME_NOT_FOUND",
            "there is no home volume",
            [("volume", "ws-1-home")],
        );
        let response: http::Response<()> = sent.into_http();
        let got = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(got.code(), Code::FailedPrecondition);
        assert_eq!(reason_of(&got).as_deref(), Some("VOLUME_NOT_FOUND"));
        assert_eq!(metadata_of(&got, "volume").as_deref(), Some("ws-1-home"));
        assert_eq!(kind_of(&got), ErrorKind::FailedPrecondition);
    }

    #[test]
    fn a_wrong_field_is_named_twice() {
        let status = invalid_argument("workspace.name", "must not be empty");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(reason_of(&status).as_deref(), Some(INVALID_FIELD));
        assert_eq!(
            metadata_of(&status, "field").as_deref(),
            Some("workspace.name")
        );
        let bad = status.get_details_bad_request().unwrap();
        assert_eq!(bad.field_violations[0].field, "workspace.name");
    }

    #[test]
    fn internal_detail_stays_inside() {
        let status = internal("password=hunter2 refused by 10.0.0.1");
        assert!(!format!("{status:?}").contains("hunter2"));
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(reason_of(&status).as_deref(), Some(INTERNAL));
    }

    #[test]
    fn a_foreign_status_has_no_reason() {
        assert_eq!(reason_of(&Status::unavailable("x")), None);
    }
}
