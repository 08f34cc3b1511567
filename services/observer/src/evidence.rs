//! What agents say, as evidence. Entries that name no workspace, or hold what this version does not
//! understand, are left out: they are nobody's evidence.
//!
//! Only the container and the volume of a workspace's own name count: agents act by name, and say by name what
//! is gone.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use windlass_domain::{
    OpId, VolumeId, WorkspaceId,
    conditions::{
        ArchiveEvidence, ContainerEvidence, FailedJob, Health, JobEvidence, RestoreEvidence,
        VolumeEvidence,
    },
    names,
};
use windlass_proto::{
    convert,
    v1::{ArchiveInfo, Container, ContainerHealth, Job, JobState, Operation, RestoreInfo, Volume},
};

/// Length of a UUID as text.
const UUID_LEN: usize = 36;

/// What a job means for its workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobNews {
    /// It is at work.
    AtWork(JobEvidence),
    /// It is the last that ended, and failed.
    Failed(FailedJob),
    /// It is the last that ended, and went well.
    Succeeded(OpId),
}

fn time(at: Option<prost_types::Timestamp>) -> Option<DateTime<Utc>> {
    at.and_then(|t| convert::time("", &t).ok())
}

/// A container: its labels and its name must say the same workspace.
pub fn container(c: Container) -> Option<(WorkspaceId, Arc<ContainerEvidence>)> {
    let state = c.state().try_into().ok()?;
    let id = container_of(&c.name).filter(|id| c.workspace_id.parse() == Ok(*id))?;
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
    Some((id, Arc::new(evidence)))
}

/// A volume, whatever its labels say; they say whether it is owned.
pub fn volume(v: Volume) -> Option<(WorkspaceId, Arc<VolumeEvidence>)> {
    let id = volume_of(&v.name)?;
    let evidence = VolumeEvidence {
        owned: v.workspace_id.parse() == Ok(id),
        volume_id: v.volume_id.parse::<VolumeId>().ok(),
        name: v.name,
    };
    Some((id, Arc::new(evidence)))
}

/// The workspace in a container's name: the UUID after any prefix.
pub fn container_of(name: &str) -> Option<WorkspaceId> {
    let start = name.len().checked_sub(UUID_LEN)?;
    let id: WorkspaceId = name.get(start..)?.parse().ok()?;
    (names::container(&name[..start], id) == name).then_some(id)
}

/// The workspace in a volume's name: the UUID between any prefix and `-home`.
pub fn volume_of(name: &str) -> Option<WorkspaceId> {
    let stem = name.strip_suffix("-home")?;
    let start = stem.len().checked_sub(UUID_LEN)?;
    let id: WorkspaceId = stem.get(start..)?.parse().ok()?;
    (names::home_volume(&stem[..start], id) == name).then_some(id)
}

/// The workspace in the key of an archive or a restore marker: the UUID before the last two segments.
pub fn key_of(key: &str) -> Option<WorkspaceId> {
    key.rsplit('/').nth(2)?.parse().ok()
}

/// A job.
pub fn job(j: Job) -> Option<(WorkspaceId, JobNews)> {
    let id = j.workspace_id.parse().ok()?;
    let news = match j.state() {
        JobState::Queued | JobState::Running => JobNews::AtWork(at_work(&j)?),
        JobState::Failed => JobNews::Failed(failed(j)?),
        JobState::Succeeded => JobNews::Succeeded(j.op_id.parse().ok()?),
        JobState::Unspecified => return None,
    };
    Some((id, news))
}

fn at_work(j: &Job) -> Option<JobEvidence> {
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
        updated_at: time(progress.update_time),
    })
}

fn failed(j: Job) -> Option<FailedJob> {
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

/// A complete archive.
pub fn archive(info: ArchiveInfo) -> Option<(WorkspaceId, Arc<ArchiveEvidence>)> {
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
    Some((info.workspace_id.parse().ok()?, Arc::new(evidence)))
}

/// A completed restore.
pub fn restore(info: RestoreInfo) -> Option<(WorkspaceId, RestoreEvidence)> {
    let evidence = RestoreEvidence {
        op_id: info.op_id.parse::<OpId>().ok()?,
        archive_key: info.archive_key,
    };
    Some((info.workspace_id.parse().ok()?, evidence))
}

/// The operation in the key of a restore marker: its last segment.
pub fn restore_op_of(key: &str) -> Option<OpId> {
    key.rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "2f4c62a8-7a4b-4a52-9e35-1d4e4c1f7f10";

    #[test]
    fn names_tell_the_workspace() {
        let id: WorkspaceId = ID.parse().unwrap();
        assert_eq!(container_of(&format!("windlass-ws-{ID}")), Some(id));
        assert_eq!(volume_of(&format!("p-{ID}-home")), Some(id));
        assert_eq!(key_of(&format!("a/b/{ID}/x/home.tar.zst")), Some(id));
        assert_eq!(key_of(&format!("{ID}/restored/{ID}")), Some(id));
        for other in ["", "home", ID, &format!("{ID}x"), &format!("é{}", &ID[1..])] {
            assert_eq!(volume_of(other), None, "{other}");
        }
        assert_eq!(container_of(&ID[1..]), None);
        assert_eq!(container_of(&format!("p-{}", ID.to_uppercase())), None);
    }

    #[test]
    fn progress_says_when_it_was_made() {
        let told = Job {
            workspace_id: ID.to_owned(),
            op_id: ID.to_owned(),
            state: JobState::Running.into(),
            progress: Some(windlass_proto::v1::Progress {
                done_bytes: 3,
                update_time: Some(prost_types::Timestamp {
                    seconds: 7,
                    nanos: 1,
                }),
                ..Default::default()
            }),
            ..Job::default()
        };
        let Some((_, JobNews::AtWork(evidence))) = job(told) else {
            panic!("not at work");
        };
        assert_eq!(evidence.done_bytes, 3);
        assert_eq!(evidence.updated_at, DateTime::from_timestamp(7, 1));
    }

    #[test]
    fn a_container_of_another_name_is_nobodys() {
        let named = |name: String| Container {
            name,
            workspace_id: ID.to_owned(),
            state: windlass_proto::v1::ContainerState::Running.into(),
            ..Container::default()
        };
        assert!(container(named(format!("p-{ID}"))).is_some());
        assert!(container(named(format!("p-{}", uuid::Uuid::nil()))).is_none());
        assert!(container(named("other".to_owned())).is_none());
    }
}
