//! What all hosts show, by workspace. Entries that name no workspace, or hold what this version does not
//! understand, are left out: they are nobody's evidence.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use windlass_domain::{
    HostId, OpId, VolumeId, WorkspaceId,
    conditions::{
        ArchiveEvidence, ContainerEvidence, FailedJob, Health, JobEvidence, RestoreEvidence,
        VolumeEvidence,
    },
    names,
    observation::{ArchivesSeen, HostSeen},
};
use windlass_proto::{
    convert,
    v1::{ArchiveInfo, Container, ContainerHealth, Job, JobState, Operation, RestoreInfo, Volume},
};

use crate::look::{Archives, HostView, Resources};

/// What was seen, by workspace.
#[derive(Debug, Default)]
pub struct Gathered {
    hosts: HashMap<HostId, HashMap<WorkspaceId, HostSeen>>,
    archives: Option<HashMap<WorkspaceId, ArchivesSeen>>,
    /// When an agent last listed the store in full.
    pub listed_at: Option<DateTime<Utc>>,
}

impl Gathered {
    /// Sorts what hosts show by workspace. Archives are seen if any agent shows them: all share one store.
    pub fn from_views(views: &mut [HostView]) -> Self {
        let mut gathered = Self::default();
        for view in views {
            if let Ok(resources) = &mut view.resources {
                let seen = by_workspace(std::mem::take(resources));
                gathered.hosts.insert(view.host_id, seen);
            }
            if let Ok(archives) = &mut view.archives {
                gathered.add_archives(std::mem::take(archives));
            }
        }
        gathered
    }

    /// What its host shows of a workspace; `None`: the host was not observed.
    pub fn host_seen(&mut self, host: HostId, id: WorkspaceId) -> Option<HostSeen> {
        let seen = self.hosts.get_mut(&host)?;
        Some(seen.remove(&id).unwrap_or_default())
    }

    /// What the store shows of a workspace; `None`: the store was not observed.
    pub fn archives_seen(&mut self, id: WorkspaceId) -> Option<ArchivesSeen> {
        let seen = self.archives.as_mut()?;
        Some(seen.remove(&id).unwrap_or_default())
    }

    fn add_archives(&mut self, archives: Archives) {
        self.listed_at = self.listed_at.max(archives.listed_at);
        let all = self.archives.get_or_insert_default();
        for info in archives.archives {
            if let Some((id, evidence)) = archive(info) {
                let seen = all.entry(id).or_default();
                if !seen.archives.iter().any(|a| a.key == evidence.key) {
                    seen.archives.push(evidence);
                }
            }
        }
        for info in archives.restores {
            if let Some((id, evidence)) = restore(info) {
                let seen = all.entry(id).or_default();
                if !seen.restores.contains(&evidence) {
                    seen.restores.push(evidence);
                }
            }
        }
    }
}

fn by_workspace(resources: Resources) -> HashMap<WorkspaceId, HostSeen> {
    let mut seen: HashMap<WorkspaceId, HostSeen> = HashMap::new();
    for c in resources.containers {
        if let Some((id, evidence)) = container(c) {
            seen.entry(id).or_default().container = Some(evidence);
        }
    }
    for v in resources.volumes {
        if let Some((id, evidence)) = volume(v) {
            seen.entry(id).or_default().volume = Some(evidence);
        }
    }
    for j in resources.jobs {
        let Ok(id) = j.workspace_id.parse() else {
            continue;
        };
        match j.state() {
            JobState::Queued | JobState::Running => {
                seen.entry(id).or_default().job = job(&j);
            }
            JobState::Failed => seen.entry(id).or_default().failed_job = failed_job(j),
            JobState::Succeeded | JobState::Unspecified => {}
        }
    }
    seen
}

fn time(at: Option<prost_types::Timestamp>) -> Option<DateTime<Utc>> {
    at.and_then(|t| convert::time("", &t).ok())
}

fn container(c: Container) -> Option<(WorkspaceId, ContainerEvidence)> {
    let state = c.state().try_into().ok()?;
    let health = match c.health() {
        ContainerHealth::Unspecified => None,
        ContainerHealth::Starting => Some(Health::Starting),
        ContainerHealth::Healthy => Some(Health::Healthy),
        ContainerHealth::Unhealthy => Some(Health::Unhealthy),
    };
    let mut evidence = ContainerEvidence {
        id: c.container_id,
        image: c.image,
        state,
        health,
        started_at: time(c.start_time),
        finished_at: time(c.finish_time),
        exit_code: None,
        oom_killed: c.oom_killed,
        op_id: c.op_id.parse().ok(),
        attempt: c.attempt,
    };
    if evidence.has_ended() {
        evidence.exit_code = Some(c.exit_code);
    }
    Some((c.workspace_id.parse().ok()?, evidence))
}

/// The volume of the workspace's name counts, whatever its labels say; they say whether it is owned.
fn volume(v: Volume) -> Option<(WorkspaceId, VolumeEvidence)> {
    let labelled: Option<WorkspaceId> = v.workspace_id.parse().ok();
    let named = named_workspace(&v.name);
    let id = named.or(labelled)?;
    let evidence = VolumeEvidence {
        owned: labelled == Some(id),
        volume_id: v.volume_id.parse::<VolumeId>().ok(),
        name: v.name,
    };
    Some((id, evidence))
}

/// The workspace in a volume's name: the UUID between any prefix and `-home`.
fn named_workspace(name: &str) -> Option<WorkspaceId> {
    const UUID_LEN: usize = 36;
    let stem = name.strip_suffix("-home")?;
    let id: WorkspaceId = stem
        .get(stem.len().checked_sub(UUID_LEN)?..)?
        .parse()
        .ok()?;
    (names::home_volume(&stem[..stem.len() - UUID_LEN], id) == name).then_some(id)
}

fn job(j: &Job) -> Option<JobEvidence> {
    let progress = j.progress.clone().unwrap_or_default();
    let stage = match j.state() {
        JobState::Queued => "queued".to_owned(),
        JobState::Running if progress.stage.is_empty() => "running".to_owned(),
        JobState::Running | JobState::Succeeded | JobState::Failed | JobState::Unspecified => {
            progress.stage
        }
    };
    Some(JobEvidence {
        op_id: j.op_id.parse().ok()?,
        stage,
        done_bytes: progress.done_bytes,
        total_bytes: progress.total_bytes,
    })
}

fn failed_job(j: Job) -> Option<FailedJob> {
    let operation = Operation::try_from(j.operation)
        .ok()
        .and_then(|o| windlass_domain::Operation::try_from(o).ok())?;
    Some(FailedJob {
        operation: operation.as_str().to_owned(),
        op_id: j.op_id.parse().ok()?,
        attempt: j.attempt,
        reason: j.reason,
        message: j.message,
        at: time(j.end_time)?,
    })
}

fn archive(info: ArchiveInfo) -> Option<(WorkspaceId, ArchiveEvidence)> {
    let evidence = ArchiveEvidence {
        archive_op_id: info.archive_op_id.parse().ok()?,
        key: info.key,
        bytes: info.bytes,
        sha256: info.sha256,
        created_at: time(info.create_time)?,
        uncompressed_bytes: info.uncompressed_bytes,
        entries: info.entries,
        volume_id: info.volume_id.parse().ok(),
        crash_consistent: info.crash_consistent,
        changed_files: info.changed_files,
    };
    Some((info.workspace_id.parse().ok()?, evidence))
}

fn restore(info: RestoreInfo) -> Option<(WorkspaceId, RestoreEvidence)> {
    let evidence = RestoreEvidence {
        op_id: info.op_id.parse::<OpId>().ok()?,
        archive_key: info.archive_key,
    };
    Some((info.workspace_id.parse().ok()?, evidence))
}
