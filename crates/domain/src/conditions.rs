//! What the observer stores: K8s-style conditions and, beside them, typed evidence. The JSON of these
//! types is the `conditions` column; `{}` is a workspace that was never observed.
//!
//! The observer keeps all of this in memory for every workspace, as it was told and as it is stored. So what most
//! workspaces have is shared between the two (`Arc`), and what few have takes no room in the others (`Box`).

use std::{borrow::Cow, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{OpId, VolumeId};

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// Observed to hold.
    True,
    /// Observed not to hold.
    False,
    /// Could not be observed.
    Unknown,
}

/// One condition. `last_transition_time` changes only with `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One CamelCase word.
    pub reason: Cow<'static, str>,
    /// A sentence for people.
    pub message: String,
    /// When status last changed.
    pub last_transition_time: DateTime<Utc>,
}

/// The `conditions` column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The container runs and is healthy.
    #[serde(
        rename = "infra.container_ready",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub container_ready: Option<Condition>,
    /// The home volume exists and carries this workspace's label.
    #[serde(
        rename = "storage.volume_ready",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub volume_ready: Option<Condition>,
    /// A complete archive exists for the row's archive_key.
    #[serde(
        rename = "storage.archive_ready",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub archive_ready: Option<Condition>,
    /// What the conditions were derived from.
    #[serde(default, skip_serializing_if = "Evidence::is_empty")]
    pub evidence: Evidence,
}

/// Typed evidence for the planner and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The workspace's container, in whatever state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<ContainerEvidence>>,
    /// The volume of the workspace's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Arc<VolumeEvidence>>,
    /// Complete archives, newest first, at most [`MAX_ARCHIVES`] and [`MAX_CHECKPOINTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Arc<ArchiveEvidence>>,
    /// The completed restore whose volume is there; of several, the one that made the present volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Box<RestoreEvidence>>,
    /// The job at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<JobEvidence>>,
    /// The last job, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_job: Option<Box<FailedJob>>,
}

/// How many archives the evidence shows at most, checkpoints aside.
pub const MAX_ARCHIVES: usize = 20;
/// How many checkpoints it shows at most: however many there are, they hide no archive.
pub const MAX_CHECKPOINTS: usize = 5;

impl Evidence {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Created, never started.
    Created,
    /// Running.
    Running,
    /// Paused.
    Paused,
    /// Being restarted by the engine.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

/// Health of a container whose image has a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not yet known.
    Starting,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy,
}

/// The workspace's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEvidence {
    /// The engine's id.
    pub id: String,
    /// Image reference.
    pub image: String,
    /// State.
    pub state: ContainerState,
    /// Health; `None` without a health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// When it last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Exit code, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether it was killed for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// The operation that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_id: Option<OpId>,
    /// The attempt that created it.
    #[serde(default)]
    pub attempt: u32,
}

impl ContainerEvidence {
    /// Running and, where it has a health check, healthy.
    pub fn is_ready(&self) -> bool {
        self.state == ContainerState::Running && matches!(self.health, None | Some(Health::Healthy))
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, ContainerState::Exited | ContainerState::Dead)
    }
}

/// The volume of the workspace's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeEvidence {
    /// Its name.
    pub name: String,
    /// Its volume_id label; `None` if it has none that is a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// Whether it carries this workspace's label.
    pub owned: bool,
}

/// A complete archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveEvidence {
    /// The operation that made it.
    pub archive_op_id: OpId,
    /// Key of its data object.
    pub key: String,
    /// Size of its data object.
    pub bytes: u64,
    /// SHA-256 of its data object, in hexadecimal digits.
    pub sha256: String,
    /// When it was completed.
    pub created_at: DateTime<Utc>,
    /// Size of the unpacked home.
    #[serde(default)]
    pub uncompressed_bytes: u64,
    /// Entries in it.
    #[serde(default)]
    pub entries: u64,
    /// The volume it was taken of; `None` for one made empty, and where an older agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// A checkpoint: taken while the container ran, so it is the home as after a crash.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crash_consistent: bool,
    /// Files that changed while they were read; above 0 in checkpoints only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub changed_files: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A completed restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreEvidence {
    /// The operation that made it.
    pub op_id: OpId,
    /// The archive it came from.
    pub archive_key: String,
}

/// The job at work, with its progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEvidence {
    /// Its operation id.
    pub op_id: OpId,
    /// What is being done.
    pub stage: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all; 0 while not known.
    pub total_bytes: u64,
    /// When it got so far, by the agent's clock; `None` where an older observer wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
}

impl JobEvidence {
    /// The stage of a job that the agent has accepted and not begun.
    pub const QUEUED: &'static str = "queued";

    /// Whether it is as far as `other`, whenever it got there.
    pub fn is_as_far_as(&self, other: &Self) -> bool {
        let then = Self {
            updated_at: other.updated_at,
            ..self.clone()
        };
        then == *other
    }

    /// Whether the agent has not begun it.
    pub fn is_queued(&self) -> bool {
        self.stage == Self::QUEUED
    }
}

/// The last job, if it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedJob {
    /// The word of its operation.
    pub operation: String,
    /// Its operation id.
    pub op_id: OpId,
    /// The attempt that failed.
    pub attempt: u32,
    /// The reason's word.
    pub reason: String,
    /// The failure in words.
    pub message: String,
    /// When it ended.
    pub at: DateTime<Utc>,
}

impl Conditions {
    /// Whether archives could be observed: `Unknown` only while the store was never seen.
    pub fn archives_known(&self) -> bool {
        self.archive_ready
            .as_ref()
            .is_none_or(|c| c.status != ConditionStatus::Unknown)
    }

    fn archives(&self) -> impl Iterator<Item = &ArchiveEvidence> {
        self.evidence.archives.iter().map(Arc::as_ref)
    }

    /// The complete archive of this operation.
    pub fn archive_of(&self, op: OpId) -> Option<&ArchiveEvidence> {
        self.archives().find(|a| a.archive_op_id == op)
    }

    /// The newest complete archive, checkpoints included: what is left if the host is lost now.
    pub fn last_safe_copy(&self) -> Option<&ArchiveEvidence> {
        self.archives().max_by_key(|a| a.created_at)
    }

    /// The complete archive of this key.
    pub fn archive_at(&self, key: &str) -> Option<&ArchiveEvidence> {
        self.archives().find(|a| a.key == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it is held in memory: what one version stored the others read, and write the same.
    #[test]
    fn the_column_is_the_same_text_when_it_is_written_again() {
        let column = r#"{
            "infra.container_ready": {"status": "True", "reason": "ContainerRunning", "message": "",
                "last_transition_time": "2026-01-05T00:00:05Z"},
            "storage.volume_ready": {"status": "False", "reason": "AWordOfAnotherVersion", "message": "m",
                "last_transition_time": "2026-01-05T00:00:05.000001Z"},
            "evidence": {
                "container": {"id": "c", "image": "i", "state": "running", "started_at": "2026-01-05T00:00:05Z",
                    "oom_killed": false, "op_id": "00000000-0000-0000-0000-000000000001", "attempt": 0},
                "volume": {"name": "v", "volume_id": "00000000-0000-0000-0000-000000000002", "owned": true},
                "archives": [
                    {"archive_op_id": "00000000-0000-0000-0000-000000000003", "key": "k", "bytes": 1,
                        "sha256": "00", "created_at": "2026-01-05T00:00:05Z", "uncompressed_bytes": 2, "entries": 3},
                    {"archive_op_id": "00000000-0000-0000-0000-000000000004", "key": "l", "bytes": 1,
                        "sha256": "01", "created_at": "2026-01-05T00:00:04Z", "uncompressed_bytes": 2, "entries": 3,
                        "crash_consistent": true, "changed_files": 5}
                ],
                "restore": {"op_id": "00000000-0000-0000-0000-000000000002", "archive_key": "k"},
                "job": {"op_id": "00000000-0000-0000-0000-000000000006", "stage": "packing", "done_bytes": 1,
                    "total_bytes": 2},
                "failed_job": {"operation": "STARTING", "op_id": "00000000-0000-0000-0000-000000000007",
                    "attempt": 1, "reason": "Timeout", "message": "m", "at": "2026-01-05T00:00:05Z"}
            }
        }"#;
        let conditions: Conditions = serde_json::from_str(column).unwrap();
        let lines = column.lines().map(str::trim);
        let text: String = lines
            .collect::<String>()
            .replace(": ", ":")
            .replace(", ", ",");
        assert_eq!(serde_json::to_string(&conditions).unwrap(), text);
    }
}
