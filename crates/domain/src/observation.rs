//! Turns what was seen of a workspace into its conditions. The two units of observation, the host and
//! the archive store, are taken or left as wholes: what was not observed keeps its last conditions.
//! `proof` says which decisions need more than that: a full list that began after some moment.

pub mod proof;

use std::sync::Arc;

use chrono::{DateTime, Utc};

pub use proof::awaits_proof;

use crate::conditions::{
    ArchiveEvidence, Condition, ConditionStatus, Conditions, ContainerEvidence, ContainerState,
    FailedJob, Health, JobEvidence, MAX_ARCHIVES, MAX_CHECKPOINTS, RestoreEvidence, VolumeEvidence,
};

/// What a complete observation of its host saw of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSeen {
    /// Its container.
    pub container: Option<Arc<ContainerEvidence>>,
    /// The volume of its name.
    pub volume: Option<Arc<VolumeEvidence>>,
    /// Its job at work.
    pub job: Option<Box<JobEvidence>>,
    /// Its last job, if that failed.
    pub failed_job: Option<Box<FailedJob>>,
}

/// What a complete observation of the archive store saw of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivesSeen {
    /// Its complete archives, in any order.
    pub archives: Vec<Arc<ArchiveEvidence>>,
    /// Its restore markers, in any order.
    pub restores: Vec<RestoreEvidence>,
}

/// The conditions after this observation. Equal to `previous` if nothing changed.
pub fn conditions(
    previous: &Conditions,
    host: Option<HostSeen>,
    archives: Option<ArchivesSeen>,
    archive_key: Option<&str>,
    restore_key: Option<&str>,
    now: DateTime<Utc>,
) -> Conditions {
    let mut next = previous.clone();
    if let Some(host) = host {
        next.container_ready = Some(transition(
            previous.container_ready.as_ref(),
            container_condition(host.container.as_deref()),
            now,
        ));
        next.volume_ready = Some(transition(
            previous.volume_ready.as_ref(),
            volume_condition(host.volume.as_deref()),
            now,
        ));
        next.evidence.container = host.container;
        next.evidence.volume = host.volume;
        next.evidence.job = host.job.map(|job| match &previous.evidence.job {
            // What moves besides (the number of files, say) is no reason to write a row.
            Some(known) if known.is_as_far_as(&job) => known.clone(),
            Some(_) | None => job,
        });
        next.evidence.failed_job = host.failed_job;
    }
    let archives_observed = archives.is_some();
    if let Some(seen) = archives {
        let volume_id = next.evidence.volume.as_ref().and_then(|v| v.volume_id);
        next.evidence.restore = seen
            .restores
            .into_iter()
            .find(|r| volume_id.is_some_and(|v| v.0 == r.op_id.0))
            .map(Box::new);
        next.evidence.archives = in_view(seen.archives, [archive_key, restore_key]);
    }
    if archives_observed || next.archive_ready.is_some() || next.container_ready.is_some() {
        let known =
            archives_observed || previous.archives_known() && previous.archive_ready.is_some();
        next.archive_ready = Some(transition(
            previous.archive_ready.as_ref(),
            archive_condition(&next, archive_key, known),
            now,
        ));
    }
    next
}

/// The newest archives and the newest checkpoints, and those the row names however old they are.
fn in_view(
    mut archives: Vec<Arc<ArchiveEvidence>>,
    named: [Option<&str>; 2],
) -> Vec<Arc<ArchiveEvidence>> {
    archives.sort_by(|a, b| (b.created_at, &b.key).cmp(&(a.created_at, &a.key)));
    let (mut clean, mut checkpoints) = (0, 0);
    archives.retain(|a| {
        let (position, most) = match a.crash_consistent {
            false => (&mut clean, MAX_ARCHIVES),
            true => (&mut checkpoints, MAX_CHECKPOINTS),
        };
        *position += 1;
        *position <= most || named.contains(&Some(a.key.as_str()))
    });
    archives
}

type Verdict = (ConditionStatus, &'static str, String);

fn transition(previous: Option<&Condition>, verdict: Verdict, now: DateTime<Utc>) -> Condition {
    let (status, reason, message) = verdict;
    Condition {
        status,
        reason: reason.into(),
        message,
        last_transition_time: previous
            .filter(|p| p.status == status)
            .map_or(now, |p| p.last_transition_time),
    }
}

fn container_condition(container: Option<&ContainerEvidence>) -> Verdict {
    use ConditionStatus::{False, True};
    let Some(c) = container else {
        return (False, "ContainerAbsent", String::new());
    };
    match (c.state, c.health) {
        (ContainerState::Running, None) => (True, "ContainerRunning", String::new()),
        (ContainerState::Running, Some(Health::Healthy)) => {
            (True, "ContainerHealthy", String::new())
        }
        (ContainerState::Running, Some(Health::Starting)) => {
            (False, "HealthStarting", String::new())
        }
        (ContainerState::Running, Some(Health::Unhealthy)) => {
            (False, "ContainerUnhealthy", String::new())
        }
        (ContainerState::Exited | ContainerState::Dead, _) => {
            (False, "ContainerExited", exit_message(c))
        }
        (ContainerState::Created, _) => (False, "ContainerCreated", String::new()),
        (ContainerState::Paused, _) => (False, "ContainerPaused", String::new()),
        (ContainerState::Restarting, _) => (False, "ContainerRestarting", String::new()),
        (ContainerState::Removing, _) => (False, "ContainerRemoving", String::new()),
    }
}

/// How a container ended, in words.
pub fn exit_message(container: &ContainerEvidence) -> String {
    let code = container
        .exit_code
        .map_or_else(|| "an unknown code".to_owned(), |c| format!("code {c}"));
    let oom = if container.oom_killed {
        ", killed for want of memory (OOM)"
    } else {
        ""
    };
    format!("the container exited with {code}{oom}")
}

fn volume_condition(volume: Option<&VolumeEvidence>) -> Verdict {
    use ConditionStatus::{False, True};
    match volume {
        None => (False, "VolumeAbsent", String::new()),
        Some(v) if v.owned => (True, "VolumePresent", String::new()),
        Some(v) => (
            False,
            "VolumeNotOwned",
            format!("volume {} does not carry this workspace's label", v.name),
        ),
    }
}

fn archive_condition(next: &Conditions, archive_key: Option<&str>, known: bool) -> Verdict {
    use ConditionStatus::{False, True, Unknown};
    if !known {
        return (
            Unknown,
            "StoreUnreachable",
            "the archive store was never observed".to_owned(),
        );
    }
    match archive_key {
        None => (False, "NoArchive", String::new()),
        Some(key) if next.archive_at(key).is_some() => (True, "ArchiveComplete", String::new()),
        Some(key) => (
            False,
            "ArchiveAbsent",
            format!("no complete archive at {key}"),
        ),
    }
}

#[cfg(test)]
mod tests;
