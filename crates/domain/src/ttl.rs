//! The TTL rules. `crates/db` applies them to all rows in one statement each; here stands the same rule
//! for one workspace, by which ExplainWorkspace says when it will happen.

use chrono::{DateTime, TimeDelta, Utc};

use crate::phase::{DesiredState, Operation, Phase};

/// Idle time after which RUNNING becomes STANDBY, unless the workspace says otherwise.
pub const DEFAULT_STANDBY_TTL: TimeDelta = TimeDelta::seconds(600);
/// Time in STANDBY after which it is archived, unless the workspace says otherwise.
pub const DEFAULT_ARCHIVE_TTL: TimeDelta = TimeDelta::seconds(1800);

/// What the rules look at.
#[derive(Clone, Debug)]
pub struct Idle {
    /// Where the workspace is.
    pub phase: Phase,
    /// What it should be.
    pub desired: DesiredState,
    /// What is in progress.
    pub operation: Operation,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Since when it is in its phase.
    pub phase_changed_at: DateTime<Utc>,
    /// When it was last used.
    pub last_access_at: Option<DateTime<Utc>>,
    /// Until when it is kept awake.
    pub keep_awake_until: Option<DateTime<Utc>>,
    /// RUNNING to STANDBY; zero: never.
    pub standby_ttl: TimeDelta,
    /// STANDBY to ARCHIVED; zero: never.
    pub archive_ttl: TimeDelta,
}

/// When and to what the rules will move a workspace; `None` if they will not.
pub fn due(idle: &Idle) -> Option<(DateTime<Utc>, DesiredState)> {
    if idle.deleted || idle.operation != Operation::None || idle.desired.phase() != idle.phase {
        return None;
    }
    let (since, ttl, to) = match idle.phase {
        Phase::Running => {
            let used = idle.last_access_at.unwrap_or(idle.phase_changed_at);
            let since = used.max(idle.phase_changed_at);
            (since, idle.standby_ttl, DesiredState::Standby)
        }
        Phase::Standby => (
            idle.phase_changed_at,
            idle.archive_ttl,
            DesiredState::Archived,
        ),
        Phase::Pending | Phase::Archived | Phase::Error | Phase::Deleting | Phase::Deleted => {
            return None;
        }
    };
    if ttl.is_zero() {
        return None;
    }
    let expiry = since.checked_add_signed(ttl)?;
    Some((idle.keep_awake_until.map_or(expiry, |k| k.max(expiry)), to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Idle {
        Idle {
            phase: Phase::Running,
            desired: DesiredState::Running,
            operation: Operation::None,
            deleted: false,
            phase_changed_at: DateTime::UNIX_EPOCH,
            last_access_at: None,
            keep_awake_until: None,
            standby_ttl: DEFAULT_STANDBY_TTL,
            archive_ttl: DEFAULT_ARCHIVE_TTL,
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    #[test]
    fn running_counts_from_the_later_of_use_and_phase() {
        assert_eq!(due(&running()), Some((at(600), DesiredState::Standby)));
        let used = Idle {
            last_access_at: Some(at(50)),
            ..running()
        };
        assert_eq!(due(&used), Some((at(650), DesiredState::Standby)));
    }

    #[test]
    fn standby_counts_from_the_phase_alone() {
        let standby = Idle {
            phase: Phase::Standby,
            desired: DesiredState::Standby,
            last_access_at: Some(at(5000)),
            ..running()
        };
        assert_eq!(due(&standby), Some((at(1800), DesiredState::Archived)));
    }

    #[test]
    fn never() {
        for idle in [
            Idle {
                deleted: true,
                ..running()
            },
            Idle {
                operation: Operation::Stopping,
                ..running()
            },
            Idle {
                desired: DesiredState::Archived,
                ..running()
            },
            Idle {
                standby_ttl: TimeDelta::zero(),
                ..running()
            },
            Idle {
                phase: Phase::Error,
                ..running()
            },
        ] {
            assert_eq!(due(&idle), None);
        }
    }

    #[test]
    fn a_lease_delays() {
        let idle = Idle {
            keep_awake_until: Some(at(9000)),
            ..running()
        };
        assert_eq!(due(&idle), Some((at(9000), DesiredState::Standby)));
    }
}
