//! Generated workspaces: the same every time, so that a test knows what there is without being told.

use uuid::Uuid;
use windlass_domain::{WorkspaceId, names};
use windlass_proto::v1::{ArchiveInfo, Container, ContainerState};

use super::PREFIX;

/// Ids of generated workspaces: the same for the same host and count.
pub fn ids(host: u64, count: u64) -> impl Iterator<Item = Uuid> {
    (1..=count).map(move |n| Uuid::from_u64_pair(host, n))
}

/// What a generated workspace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// A running container.
    pub container: bool,
    /// A home volume, whose volume_id is [`volume_id`].
    pub volume: bool,
    /// Complete archives that the store's list shows.
    pub archives: u32,
}

impl Shape {
    /// Container and volume.
    pub const RUNNING: Self = Self {
        container: true,
        volume: true,
        archives: 0,
    };
    /// A volume.
    pub const STANDBY: Self = Self {
        container: false,
        ..Self::RUNNING
    };
    /// One archive.
    pub const ARCHIVED: Self = Self {
        container: false,
        volume: false,
        archives: 1,
    };
}

/// The volume_id of a generated workspace's home.
pub fn volume_id(workspace: Uuid) -> Uuid {
    Uuid::from_u128(workspace.as_u128() ^ (0xB << 100))
}

/// The operation that made a generated workspace's n-th archive (from 0).
pub fn archive_op(workspace: Uuid, n: u32) -> Uuid {
    Uuid::from_u128(workspace.as_u128() ^ (0xA << 100) ^ (u128::from(n) << 64))
}

/// The key of an archive.
pub fn archive_key(workspace: Uuid, archive_op: Uuid) -> String {
    format!("{workspace}/{archive_op}/home.tar.zst")
}

/// A running container that `op` made.
pub(super) fn running(workspace: Uuid, op: Uuid) -> Container {
    Container {
        name: names::container(PREFIX, WorkspaceId(workspace)),
        container_id: format!("{0}{0}", workspace.simple()),
        workspace_id: workspace.to_string(),
        image: "windlass/demo:latest".to_owned(),
        state: ContainerState::Running.into(),
        start_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        op_id: op.to_string(),
        ..Container::default()
    }
}

pub(super) fn archive_info(workspace: Uuid, archive_op: Uuid) -> ArchiveInfo {
    ArchiveInfo {
        key: archive_key(workspace, archive_op),
        workspace_id: workspace.to_string(),
        archive_op_id: archive_op.to_string(),
        bytes: 1_000,
        uncompressed_bytes: 4_000,
        entries: 10,
        sha256: format!("{0}{0}", archive_op.simple()),
        create_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        ..ArchiveInfo::default()
    }
}
