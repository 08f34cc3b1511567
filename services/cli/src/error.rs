//! What a command can fail with: one line for people and an exit code for scripts.

use std::error::Error as _;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line cannot be right. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// What was named does not exist. Exit code 3.
    #[error("{0}")]
    NotFound(String),
    /// A server does not answer. Exit code 4.
    #[error("{0}")]
    Unreachable(String),
    /// It took longer than it may. Exit code 5.
    #[error("{0}")]
    Timeout(String),
    /// Anything else. Exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Timeout(_) => 5,
        }
    }

    /// What a server answered, or why it did not.
    pub fn from_status(status: &Status, server: &str, address: &str) -> Self {
        if let Some(why) = transport_failure(status) {
            return Self::Unreachable(format!(
                "cannot reach the {server} at {address}: {why}; is it running (`./dev up`)?"
            ));
        }
        let text = describe(status);
        match status.code() {
            Code::NotFound => Self::NotFound(text),
            Code::InvalidArgument => Self::Usage(text),
            Code::Unavailable => {
                Self::Unreachable(format!("the {server} is not available: {text}"))
            }
            Code::DeadlineExceeded => {
                Self::Timeout(format!("the {server} did not answer in time: {text}"))
            }
            Code::Unauthenticated => Self::Failed(format!(
                "the {server} at {address} does not accept the token: {text}"
            )),
            _ => Self::Failed(text),
        }
    }
}

/// The innermost reason, if it was the connection that failed and not the server that refused.
fn transport_failure(status: &Status) -> Option<String> {
    let source = status.source()?;
    if !source.is::<tonic::transport::Error>() {
        return None;
    }
    let mut innermost = source;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    Some(innermost.to_string())
}

/// Message, reason and field of a refusal, on one line.
pub fn describe(status: &Status) -> String {
    let details = status.get_error_details();
    let mut text = if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status
            .message()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    if let Some(request) = details.bad_request() {
        for violation in &request.field_violations {
            if !text.contains(&violation.field) {
                text = format!("{}: {text}", violation.field);
            }
        }
    }
    match details.error_info() {
        Some(info) => format!("{text} ({})", info.reason),
        None => text,
    }
}

/// The reason of a refusal, such as `ACCEPT_REQUIRED`; empty if it has none.
pub fn reason_of(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_is_one_line_with_reason_and_field() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info(
                "INVALID_FIELD",
                windlass_proto::ERROR_DOMAIN,
                HashMap::new(),
            )
            .add_bad_request_violation("workspace.name", "must not be empty");
        let status =
            Status::with_error_details(Code::InvalidArgument, "must not be\nempty", details);
        let error = CliError::from_status(&status, "api", "http://x");
        assert_eq!(
            error.to_string(),
            "workspace.name: must not be empty (INVALID_FIELD)"
        );
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn codes_become_exit_codes() {
        let code = |status: Status| CliError::from_status(&status, "api", "a").exit_code();
        assert_eq!(code(Status::not_found("x")), 3);
        assert_eq!(code(Status::unavailable("x")), 4);
        assert_eq!(code(Status::deadline_exceeded("x")), 5);
        assert_eq!(code(Status::aborted("x")), 1);
        assert_eq!(code(Status::unauthenticated("x")), 1);
    }
}
