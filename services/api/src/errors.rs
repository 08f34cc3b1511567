//! The one mapping from what went wrong here to what a client is told.

use tonic::Status;
use windlass_db::{
    DbError, DbErrorKind,
    write::api::{OverQuota, Quota},
};
use windlass_proto::convert::InvalidField;
use windlass_service::{
    ErrorKind,
    error::{TOKEN_INVALID, internal, invalid_argument, refuse, status},
};

/// PostgreSQL is away.
pub const DATABASE_UNAVAILABLE: &str = "DATABASE_UNAVAILABLE";

pub fn database(error: DbError) -> Status {
    match error.kind() {
        DbErrorKind::Unavailable => {
            tracing::warn!("{error}");
            refuse(
                ErrorKind::Unavailable,
                DATABASE_UNAVAILABLE,
                "the database is away; try again",
            )
        }
        // api leads nothing, and tells apart the conflicts that a client can cause.
        DbErrorKind::Fenced
        | DbErrorKind::Conflict
        | DbErrorKind::Forbidden
        | DbErrorKind::Corrupt
        | DbErrorKind::Internal => internal(error),
    }
}

pub fn invalid(error: InvalidField) -> Status {
    invalid_argument(&error.field, error.description)
}

/// A watch whose token is void by now.
pub fn watch_void() -> Status {
    refuse(
        ErrorKind::Unauthenticated,
        TOKEN_INVALID,
        "the token is not valid any more, or its user may see less",
    )
}

/// A watch whose client takes nothing.
pub fn watch_stalled() -> Status {
    refuse(
        ErrorKind::Unavailable,
        "WATCH_STALLED",
        "the client took nothing for too long; resume with the last resume_token",
    )
}

pub fn workspace_not_found() -> Status {
    refuse(
        ErrorKind::NotFound,
        "WORKSPACE_NOT_FOUND",
        "there is no such workspace",
    )
}

pub fn host_not_found() -> Status {
    refuse(
        ErrorKind::NotFound,
        "HOST_NOT_FOUND",
        "there is no such host",
    )
}

pub fn name_taken() -> Status {
    refuse(
        ErrorKind::AlreadyExists,
        "NAME_TAKEN",
        "the owner has a workspace of that name",
    )
}

pub fn etag_mismatch() -> Status {
    refuse(
        ErrorKind::Aborted,
        "ETAG_MISMATCH",
        "the workspace was changed meanwhile; read it again",
    )
}

pub fn workspace_deleted() -> Status {
    failed("WORKSPACE_DELETED", "the workspace is deleted")
}

pub fn not_deleted() -> Status {
    failed("NOT_DELETED", "the workspace is not deleted")
}

pub fn home_gone() -> Status {
    failed(
        "HOME_GONE",
        "nothing is left that the workspace could come back with",
    )
}

pub fn archive_not_found() -> Status {
    failed(
        "ARCHIVE_NOT_FOUND",
        "no complete archive of that key is observed; see ListWorkspaceArchives",
    )
}

pub fn no_host() -> Status {
    failed("NO_HOST", "no host takes workspaces")
}

pub fn archives_not_configured() -> Status {
    failed(
        "ARCHIVES_NOT_CONFIGURED",
        "the api cannot reach archives: it has no service token, or not the agents' (WINDLASS_SERVICE_TOKEN)",
    )
}

/// No agent answers.
pub fn agent_unavailable(why: &str) -> Status {
    refuse(
        ErrorKind::Unavailable,
        "AGENT_UNAVAILABLE",
        format!("no agent answers: {why}"),
    )
}

fn failed(reason: &str, message: &str) -> Status {
    refuse(ErrorKind::FailedPrecondition, reason, message)
}

pub fn over_quota(over: OverQuota, quota: Quota) -> Status {
    let (reason, scope, limit, message) = match over {
        OverQuota::PerUser => (
            "WORKSPACE_LIMIT",
            "user",
            quota.per_user,
            "the owner has as many workspaces as one user may have",
        ),
        OverQuota::RunningPerUser => (
            "RUNNING_LIMIT",
            "user",
            quota.running_per_user,
            "as many workspaces of the owner run as may run at the same time",
        ),
        OverQuota::Running => (
            "RUNNING_LIMIT",
            "all",
            quota.running,
            "as many workspaces of all users run as may run at the same time",
        ),
    };
    status(
        ErrorKind::ResourceExhausted,
        reason,
        format!("{message}: {limit}"),
        [("limit", limit.to_string()), ("scope", scope.to_owned())],
    )
}
