//! Store failures: one kind to act on, one text that keeps what the store said.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// What a store failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No connection, a timeout, a broken transfer, or the store answers 5xx.
    Unreachable,
    /// Credentials missing, expired or not sufficient.
    Denied,
    /// The key does not exist.
    NotFound,
    /// The store asks to slow down (503 SlowDown, 429).
    Throttled,
    /// The request itself is refused (too large, malformed, bad configuration).
    Invalid,
    /// Bytes arrived damaged, or an object is not what it should be.
    Corrupt,
    /// Anything else, a missing bucket among them.
    Other,
}

impl StoreErrorKind {
    /// Whether the same call may succeed a little later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled)
    }
}

/// A failed call to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    kind: StoreErrorKind,
    action: String,
    code: Option<String>,
    status: Option<u16>,
    message: String,
    /// No answer in any of the SDK's attempts, each of which was waited for as long as its timeout says.
    timed_out: bool,
}

impl StoreError {
    pub(crate) fn new(kind: StoreErrorKind, action: String, message: impl Into<String>) -> Self {
        Self {
            kind,
            action,
            code: None,
            status: None,
            message: message.into(),
            timed_out: false,
        }
    }

    pub(super) fn from_code(action: String, code: &str, message: &str) -> Self {
        Self {
            kind: classify(Some(code), None),
            action,
            code: Some(code.to_owned()),
            status: None,
            message: message.to_owned(),
            timed_out: false,
        }
    }

    /// Whether repeating is worth more than the SDK already tried. A store that hangs has used up every
    /// attempt's timeout: trying again would only hide it for minutes. One that takes no connection has
    /// used up nothing.
    pub(super) fn worth_repeating(&self) -> bool {
        self.kind.is_transient() && !self.timed_out
    }

    /// Of a GET, whose answer can say that it is the key that is missing. A 404 that does not is of something
    /// on the way, such as a proxy; the SDK calls it "NotFound" where it has no body.
    pub(super) fn of_get(mut self) -> Self {
        if self.kind == StoreErrorKind::NotFound && self.code() != Some("NoSuchKey") {
            self.kind = StoreErrorKind::Unreachable;
        }
        self
    }

    /// What to do about it.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// The store's own error code, such as "NoSuchKey".
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// HTTP status, where the store answered.
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store: {}: ", self.action)?;
        match (&self.code, self.status) {
            (Some(code), Some(status)) => write!(f, "{code} ({status})")?,
            (Some(code), None) => write!(f, "{code}")?,
            (None, Some(status)) => write!(f, "HTTP {status}")?,
            (None, None) => return write!(f, "{}", self.message),
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl Error for StoreError {}

/// Maps an SDK failure.
pub(super) fn failed<E>(action: String, error: SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|r| r.status().as_u16());
    let (code, message) = match error.as_service_error() {
        Some(e) => (
            e.code().map(str::to_owned),
            e.message().unwrap_or_default().to_owned(),
        ),
        None => (None, chain(&error)),
    };
    let kind = match &error {
        SdkError::ServiceError(_) => classify(code.as_deref(), status),
        SdkError::TimeoutError(_) => StoreErrorKind::Unreachable,
        SdkError::DispatchFailure(failure) => {
            // Credentials are resolved before dispatch, and their failure surfaces here.
            let credentials = message.to_lowercase().contains("credentials");
            match failure.is_io() || failure.is_timeout() || !credentials {
                true => StoreErrorKind::Unreachable,
                false => StoreErrorKind::Denied,
            }
        }
        SdkError::ConstructionFailure(_) => StoreErrorKind::Invalid,
        SdkError::ResponseError(_) => match status {
            Some(200..300) | None => StoreErrorKind::Unreachable, // the answer broke off
            Some(_) => classify(None, status),
        },
        _ => StoreErrorKind::Other,
    };
    StoreError {
        kind,
        action,
        code,
        status,
        message,
        timed_out: match &error {
            SdkError::TimeoutError(_) => true,
            SdkError::DispatchFailure(failure) => failure.is_timeout(),
            _ => false,
        },
    }
}

/// Maps a failure in a body or a request's parts.
pub(super) fn io_failed(action: String, error: impl Error + Send + Sync + 'static) -> StoreError {
    let message = chain(&error);
    let lower = message.to_lowercase();
    let kind = match lower.contains("checksum") {
        true => StoreErrorKind::Corrupt,
        false => StoreErrorKind::Unreachable,
    };
    StoreError::new(kind, action, message)
}

fn classify(code: Option<&str>, status: Option<u16>) -> StoreErrorKind {
    match code {
        Some("NoSuchKey" | "NotFound") => return StoreErrorKind::NotFound,
        // A missing bucket or upload says nothing about a key.
        Some("NoSuchBucket" | "NoSuchUpload") => return StoreErrorKind::Other,
        Some(
            "AccessDenied"
            | "AllAccessDisabled"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "TokenRefreshRequired",
        ) => return StoreErrorKind::Denied,
        Some(
            "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "TooManyRequestsException",
        ) => return StoreErrorKind::Throttled,
        Some("RequestTimeout" | "InternalError" | "IncompleteBody") => {
            return StoreErrorKind::Unreachable;
        }
        Some(
            "BadDigest"
            | "InvalidDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch"
            | "InvalidRange",
        ) => return StoreErrorKind::Corrupt,
        _ => {}
    }
    match status {
        Some(401 | 403) => StoreErrorKind::Denied,
        Some(429 | 503) => StoreErrorKind::Throttled,
        Some(408 | 500..=599) => StoreErrorKind::Unreachable,
        Some(416) => StoreErrorKind::Corrupt,
        // Without a code it is not the store that says so.
        Some(404) => StoreErrorKind::Unreachable,
        Some(400..=499) => StoreErrorKind::Invalid,
        _ => StoreErrorKind::Other,
    }
}

/// An error and its causes in one line, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::operation::get_object::GetObjectError;
    use aws_smithy_runtime_api::client::result::ConnectorError;

    use super::*;

    #[test]
    fn only_the_store_itself_says_that_a_key_is_missing() {
        let of = |code| StoreError::from_code("get".into(), code, "").of_get();
        assert_eq!(of("NoSuchKey").kind(), StoreErrorKind::NotFound);
        assert_eq!(of("NotFound").kind(), StoreErrorKind::Unreachable);
        assert_eq!(classify(None, Some(404)), StoreErrorKind::Unreachable);
        // What the SDK makes of a HEAD's 404.
        assert_eq!(
            classify(Some("NotFound"), Some(404)),
            StoreErrorKind::NotFound
        );
    }

    #[test]
    fn what_fails_at_once_is_worth_repeating_and_what_hangs_is_not() {
        type Failure = SdkError<GetObjectError, HttpResponse>;
        for (error, worth) in [
            (
                Failure::dispatch_failure(ConnectorError::io("refused".into())),
                true,
            ),
            (
                Failure::dispatch_failure(ConnectorError::timeout("no connection".into())),
                false,
            ),
            (Failure::timeout_error("no answer"), false),
        ] {
            let error = failed("get".into(), error);
            assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
            assert_eq!(error.worth_repeating(), worth, "{error}");
        }
    }
}
