//! How what a pass answers becomes a gRPC status: once, for all coordinators.

use tonic::Status;
use windlass_db::{DbError, DbErrorKind};
use windlass_service::{
    ErrorKind,
    error::{internal, refuse},
};

use crate::run::{PassError, Refusal, RunError};

/// Reason of the refusal by a process that does not lead.
pub const NOT_LEADER: &str = "NOT_LEADER";
/// Reason of the refusal while PostgreSQL is away.
pub const DATABASE_UNAVAILABLE: &str = "DATABASE_UNAVAILABLE";

impl From<RunError> for Status {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NotLeader(_) => {
                refuse(ErrorKind::FailedPrecondition, NOT_LEADER, error.to_string())
            }
            RunError::Stopping => refuse(
                ErrorKind::Unavailable,
                windlass_service::error::DRAINING,
                error.to_string(),
            ),
            RunError::Pass(PassError::Db(error)) => database(&error),
            RunError::Pass(PassError::Unavailable(message)) => {
                refuse(ErrorKind::Unavailable, "UNAVAILABLE", message)
            }
            RunError::Pass(PassError::Refused(refusal, message)) => match refusal {
                Refusal::NotFound => refuse(ErrorKind::NotFound, "NOT_FOUND", message),
                Refusal::Precondition(reason) => {
                    refuse(ErrorKind::FailedPrecondition, reason, message)
                }
                Refusal::Stale => refuse(ErrorKind::Aborted, "STALE", message),
            },
        }
    }
}

/// A database error as a status.
pub fn database(error: &DbError) -> Status {
    match error.kind() {
        DbErrorKind::Unavailable => refuse(
            ErrorKind::Unavailable,
            DATABASE_UNAVAILABLE,
            "the database cannot be reached; try again",
        ),
        DbErrorKind::Fenced => refuse(
            ErrorKind::FailedPrecondition,
            NOT_LEADER,
            "this process was deposed as leader; ask the new one",
        ),
        DbErrorKind::Conflict
        | DbErrorKind::Forbidden
        | DbErrorKind::Corrupt
        | DbErrorKind::Internal => internal(error),
    }
}
