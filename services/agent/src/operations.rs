//! What the agent does to workspaces, one file each. All of them are idempotent: where reality is already
//! as asked, nothing is done.

mod archive;
mod checkpoint;
mod create_empty_archive;
mod delete_archives;
mod delete_volume;
mod home;
mod provision;
mod restore;
mod start;
mod stop;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use windlass_archive::Store;
use windlass_archive::pack::{ArchiveSpec, Verify};
use windlass_domain::{WorkspaceId, names};
use windlass_proto::v1;

use crate::config::DockerArgs;
use crate::docker::Engine;
use crate::epochs::Epochs;
use crate::error::Failure;
use crate::index::Index;
use crate::jobs::Job;

pub use archive::Archive;
pub use checkpoint::Checkpoint;
pub use create_empty_archive::CreateEmptyArchive;
pub use delete_archives::{DeleteArchives, Deleted};
pub use delete_volume::{DeleteVolume, Keep};
pub use provision::Provision;
pub use restore::Restore;
pub use start::{MAX_PULLS, Start};
pub use stop::Stop;

/// What operations work with.
#[derive(Debug)]
pub struct Tools {
    /// The engine.
    pub engine: Engine,
    /// The archive store.
    pub store: Store,
    /// What the store holds.
    pub index: Index,
    /// How containers are made.
    pub docker: DockerArgs,
    /// How archives are verified.
    pub verify: Verify,
    /// Level of zstd.
    pub zstd_level: i32,
    /// Epochs seen.
    pub epochs: Arc<Epochs>,
    /// Places of image pulls.
    pub pulls: Semaphore,
}

impl Tools {
    /// Name of a workspace's container.
    pub fn container(&self, workspace: uuid::Uuid) -> String {
        names::container(self.engine.prefix(), WorkspaceId(workspace))
    }

    fn volume(&self, workspace: uuid::Uuid) -> String {
        names::home_volume(self.engine.prefix(), WorkspaceId(workspace))
    }

    /// The last look before something that cannot be taken back.
    fn still_led(&self, job: &Job) -> Result<(), Failure> {
        self.epochs.check(job.claim())
    }

    fn archive_spec(&self, job: &Job, label: &v1::WorkspaceLabel) -> ArchiveSpec {
        let label = [
            ("name", &label.name),
            ("owner", &label.owner),
            ("image", &label.image),
        ];
        ArchiveSpec {
            workspace: label
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect::<BTreeMap<_, _>>(),
            compression_level: self.zstd_level,
            verify: self.verify,
            empty_owner: (self.docker.home_uid, self.docker.home_gid),
            ..ArchiveSpec::new(job.workspace, job.op_id)
        }
    }
}

fn count_bytes(direction: &'static str, bytes: u64) {
    metrics::counter!("windlass_agent_archive_bytes_total", "direction" => direction)
        .increment(bytes);
}
