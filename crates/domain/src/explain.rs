//! Says in words why a workspace is as it is and what comes next. The words follow judge and planner;
//! they decide nothing.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    control::{Freshness, Workspace},
    error_reason::ErrorReason,
    home::HomeLocation,
    judge::{Judgement, home_archive_present, judge},
    phase::{Operation, Phase},
    planner::{checkpoint_due_at, wanted},
    policy::Policy,
    queue::Position,
    ttl::{self, Idle},
};

/// An explanation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Why the workspace is in its phase.
    pub why: String,
    /// What happens next if nobody does anything.
    pub next: String,
    /// When; `None` if at once or never.
    pub next_at: Option<DateTime<Utc>>,
    /// What stands in the way, most important first.
    pub blockers: Vec<String>,
    /// How old the newest archive is: what a lost host would cost.
    pub last_safe_copy: String,
}

/// Explains a workspace.
pub fn explain(
    ws: &Workspace,
    idle: &Idle,
    fresh: &Freshness,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Explanation {
    let mut e = Explanation {
        why: why(ws),
        blockers: blockers(ws, fresh, policy, now),
        last_safe_copy: last_safe_copy(ws, now),
        ..Explanation::default()
    };
    let c = &ws.control;
    if c.phase == Phase::Error {
        e.next = match c.error_reason {
            Some(ErrorReason::Unreachable) => "it goes on when its host is observed again",
            Some(ErrorReason::ImagePullFailed | ErrorReason::CrashLoop) => {
                "nothing until it gets another image, is recovered (`windlass recover`) or deleted"
            }
            Some(
                ErrorReason::Timeout
                | ErrorReason::ActionFailed
                | ErrorReason::StoreUnavailable
                | ErrorReason::ArchiveCorrupted
                | ErrorReason::DataLost
                | ErrorReason::ContainerWithoutVolume
                | ErrorReason::VolumeChanged
                | ErrorReason::CheckpointFailed,
            )
            | None => "nothing until it is recovered (`windlass recover`) or deleted",
        }
        .to_owned();
    } else if c.operation != Operation::None {
        e.next = match c.retry_at {
            Some(_) => format!("{} is tried again", c.operation),
            None => format!("{} goes on until its result is observed", c.operation),
        };
        e.next_at = c.retry_at;
    } else if c.phase == Phase::Deleted {
        e.next = "nothing".to_owned();
    } else {
        let planned = match judge(ws, fresh, policy) {
            Judgement::Phase(phase) => wanted(ws, phase),
            Judgement::Broken(_) | Judgement::StillBroken | Judgement::Undecided => Operation::None,
        };
        let becomes_home = matches!(c.phase, Phase::Archived | Phase::Pending);
        let restore = ws.open_restore().filter(|_| becomes_home);
        let due = ws.due_restore().is_some();
        if let (Operation::None, Some(wish), true) = (planned, restore, due) {
            e.next = format!("archive {} becomes its home", wish.key);
        } else if c.phase == Phase::Pending && restore.is_some() && planned == Operation::None {
            e.next = "it waits until its archive is observed".to_owned();
        } else if planned != Operation::None {
            e.next = format!("{planned} begins");
            e.next_at = c.retry_at.filter(|at| *at > now);
        } else if let Some((at, what)) = by_the_clock(ws, idle) {
            e.next = what;
            e.next_at = Some(at).filter(|at| *at > now);
        } else if c.phase == Phase::Deleting {
            e.next = "gc removes its archives after their grace".to_owned();
        } else {
            e.next = "nothing: it is where it should be".to_owned();
        }
    }
    e
}

/// What happens by itself where the workspace is as it should be: the next checkpoint, or the next step down.
fn by_the_clock(ws: &Workspace, idle: &Idle) -> Option<(DateTime<Utc>, String)> {
    let checkpoint = checkpoint_due_at(ws, ws.control.phase)
        .map(|at| (at, format!("{} begins", Operation::Checkpointing)));
    let down = ttl::due(idle).map(|(at, to)| (at, format!("unless it is used, it goes to {to}")));
    checkpoint.into_iter().chain(down).min_by_key(|(at, _)| *at)
}

fn last_safe_copy(ws: &Workspace, now: DateTime<Utc>) -> String {
    let Some(archive) = ws.conditions.last_safe_copy() else {
        return "none".to_owned();
    };
    let kind = if archive.crash_consistent {
        "checkpoint"
    } else {
        "archive"
    };
    format!("{} ago ({kind})", age(now - archive.created_at))
}

/// In the largest unit that is not below two of it.
fn age(delta: TimeDelta) -> String {
    let seconds = delta.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Where a workspace stands in the queue of its host, in words.
pub fn waits_for_a_place(position: &Position, host: &str) -> String {
    let to = match position.operation {
        Operation::None => "to begin",
        Operation::Provisioning => "to be provisioned",
        Operation::CreateEmptyArchive => "to get an empty archive",
        Operation::Restoring => "to be restored",
        Operation::Starting => "to start",
        Operation::Archiving => "to be archived",
        Operation::Checkpointing => "for a checkpoint",
        Operation::Stopping => "to stop",
        Operation::Deleting => "to be deleted",
    };
    let (n, length) = (ordinal(position.position), position.length);
    format!("it waits for a place: {n} of {length} {to} on host {host}")
}

fn ordinal(n: usize) -> String {
    let ending = match (n % 100, n % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        (_, _) => "th",
    };
    format!("{n}{ending}")
}

fn why(ws: &Workspace) -> String {
    let c = &ws.control;
    match c.phase {
        Phase::Pending => "it has no home yet".to_owned(),
        Phase::Archived => format!(
            "its home is the archive {}",
            c.archive_key.as_deref().unwrap_or("(none)")
        ),
        Phase::Standby => match &ws.conditions.container_ready {
            Some(condition) if !condition.message.is_empty() => {
                format!("its home is a volume; {}", condition.message)
            }
            _ => "its home is a volume, and no container is ready".to_owned(),
        },
        Phase::Running => "its container is ready and its home volume is present".to_owned(),
        Phase::Error => {
            let reason = c.error_reason.map_or("unknown", ErrorReason::as_str);
            format!("{reason}: {}", c.error_message.as_deref().unwrap_or(""))
        }
        Phase::Deleting => match c.home.location {
            HomeLocation::Archive => {
                "it was deleted; its archive is kept until gc collects it".to_owned()
            }
            HomeLocation::None | HomeLocation::Volume => {
                "it was deleted, and something of it is still there".to_owned()
            }
        },
        Phase::Deleted => "it was deleted, and nothing of it is left".to_owned(),
    }
}

fn blockers(ws: &Workspace, fresh: &Freshness, policy: &Policy, now: DateTime<Utc>) -> Vec<String> {
    let c = &ws.control;
    let mut found = Vec::new();
    if let Some(reason) = c.error_reason {
        let message = c.error_message.as_deref().unwrap_or("");
        found.push(match reason {
            ErrorReason::CheckpointFailed => format!(
                "last checkpoint failed ({} in a row): {message}",
                c.error_count
            ),
            _ => format!(
                "{reason} ({} of {} failures in a row): {message}",
                c.error_count, policy.max_retries
            ),
        });
    }
    if let Some(wish) = ws.open_restore()
        && ws.due_restore().is_none()
        && !ws.spec.deleted
    {
        found.push(format!(
            "it is to be restored from {}, but no complete archive of that key is observed; \
             restore another one of `windlass ws archives`",
            wish.key
        ));
    }
    if c.home.location == HomeLocation::Archive
        && !home_archive_present(ws)
        && !ws.spec.deleted
        && c.phase != Phase::Error
    {
        let key = c.archive_key.as_deref().unwrap_or("(none)");
        found.push(format!("its home, the archive {key}, is not observed"));
    }
    match fresh.host {
        None => found.push("its host was never observed".to_owned()),
        Some(at) if now - at > policy.stale_after => found.push(format!(
            "its host was last observed {} s ago; nothing begins until it is seen again",
            (now - at).num_seconds()
        )),
        Some(_) => {}
    }
    if c.operation != Operation::None && ws.spec.desired.phase() != c.phase && c.retry_at.is_none()
    {
        found.push(format!("{} is in progress", c.operation));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_told_in_words() {
        let words = |position| {
            let operation = Operation::Starting;
            let length = 141;
            waits_for_a_place(
                &Position {
                    operation,
                    position,
                    length,
                },
                "h1",
            )
        };
        assert_eq!(
            words(3),
            "it waits for a place: 3rd of 141 to start on host h1"
        );
        for (n, word) in [
            (1, "1st"),
            (2, "2nd"),
            (4, "4th"),
            (11, "11th"),
            (112, "112th"),
            (121, "121st"),
        ] {
            assert!(words(n).contains(&format!(" {word} ")), "{}", words(n));
        }
    }
}
