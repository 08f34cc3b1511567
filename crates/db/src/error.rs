//! One error for everything PostgreSQL may answer, with the kinds that callers tell apart.

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// What callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbErrorKind {
    /// PostgreSQL is away or too busy: try again.
    Unavailable,
    /// The lease of a leader is gone: stop leading.
    Fenced,
    /// A unique constraint.
    Conflict,
    /// The role may not do that.
    Forbidden,
    /// A row holds what this version does not understand.
    Corrupt,
    /// Anything else: a bug.
    Internal,
}

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// What is to be a URL of PostgreSQL is none. The URL is not repeated: it holds a password.
    #[error("the database URL (WINDLASS_DATABASE_URL) is not one of PostgreSQL")]
    Url,
    /// No connection, or it broke.
    #[error("PostgreSQL is unavailable: {0}")]
    Unavailable(String),
    /// The lease of a leader is gone.
    #[error("{name} does not lead any more (epoch {epoch})")]
    Fenced {
        /// What it led.
        name: String,
        /// With which epoch.
        epoch: i64,
    },
    /// A unique constraint, by name.
    #[error("constraint {constraint} is violated")]
    Conflict {
        /// Its name.
        constraint: String,
    },
    /// Refused by PostgreSQL's grants (42501).
    #[error("permission denied: {0}")]
    Forbidden(String),
    /// A stored value that is none.
    #[error("row {id}: {what}")]
    Corrupt {
        /// Of which row.
        id: String,
        /// What is wrong.
        what: String,
    },
    /// A migration failed.
    #[error("migration failed: {0}")]
    Migration(String),
    /// Anything else.
    #[error("database: {0}")]
    Internal(DieselError),
}

impl DbError {
    /// What callers tell apart.
    pub fn kind(&self) -> DbErrorKind {
        match self {
            Self::Unavailable(_) => DbErrorKind::Unavailable,
            Self::Fenced { .. } => DbErrorKind::Fenced,
            Self::Conflict { .. } => DbErrorKind::Conflict,
            Self::Forbidden(_) => DbErrorKind::Forbidden,
            Self::Corrupt { .. } => DbErrorKind::Corrupt,
            Self::Url | Self::Migration(_) | Self::Internal(_) => DbErrorKind::Internal,
        }
    }

    /// Whether it is the violation of this unique constraint.
    pub fn violates(&self, name: &str) -> bool {
        matches!(self, Self::Conflict { constraint } if constraint == name)
    }
}

impl From<DieselError> for DbError {
    fn from(error: DieselError) -> Self {
        match error {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, info) => {
                Self::Conflict {
                    constraint: info.constraint_name().unwrap_or_default().to_owned(),
                }
            }
            DieselError::DatabaseError(
                DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::SerializationFailure,
                info,
            ) => Self::Unavailable(info.message().to_owned()),
            DieselError::DatabaseError(_, ref info)
                if info.message().starts_with("permission denied") =>
            {
                Self::Forbidden(info.message().to_owned())
            }
            // An administrator's shutdown, a crash of the server, a connection cut off, a deadlock, a lock or an
            // answer that was waited for too long.
            DieselError::DatabaseError(_, ref info)
                if info.message().starts_with("terminating connection")
                    || info.message().starts_with("canceling statement due to")
                    || info.message().contains("connection closed")
                    || info.message().starts_with("the database system is")
                    || info.message().starts_with("deadlock detected") =>
            {
                Self::Unavailable(info.message().to_owned())
            }
            DieselError::BrokenTransactionManager => {
                Self::Unavailable("the connection broke within a transaction".to_owned())
            }
            other => Self::Internal(other),
        }
    }
}

/// The result of everything here.
pub type Result<T, E = DbError> = std::result::Result<T, E>;
