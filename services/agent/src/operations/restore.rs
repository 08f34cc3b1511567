//! An archive back into a volume of its own.

use std::sync::Arc;

use tracing::Instrument;
use uuid::Uuid;
use windlass_archive::unpack::{self, RestoreSpec};
use windlass_archive::{ArchiveMarker, verify};

use super::{Tools, count_bytes, home};
use crate::error::Failure;
use crate::jobs::{Job, Kind, Task};

/// Restores an archive into the volume whose volume_id is the op_id.
#[derive(Debug)]
pub struct Restore {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// Key of the archive's data.
    pub archive_key: String,
    /// The volume that makes room.
    pub replaces: Option<Uuid>,
}

impl Task for Restore {
    const KIND: Kind = Kind::Restore;

    async fn check(&self, job: &Job) -> Result<(), Failure> {
        let tools = &self.tools;
        home::unused(tools, &tools.volume(job.workspace)).await?;
        home::makeable(tools, job, self.replaces).await?;
        verify::read_marker(&tools.store, &self.archive_key).await?;
        Ok(())
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        let tools = &self.tools;
        home::unused(tools, &tools.volume(job.workspace)).await?;
        // Before anything makes room for it.
        let archive = verify::read_marker(&tools.store, &self.archive_key).await?;
        self.forget_lost(job, &archive).await?;
        let volume = home::make(tools, job, self.replaces).await?;
        let root = home::root(&volume)?;
        let spec = RestoreSpec {
            workspace_id: job.workspace,
            op_id: job.op_id,
        };
        let (progress, cancel) = (job.progress.archive(), job.cancel.clone());
        let key = &self.archive_key;
        let report = unpack::restore(&tools.store, key, root, spec, progress, cancel)
            .instrument(tracing::info_span!("s3 download"))
            .await?;
        if !report.already_complete {
            count_bytes("restored", report.archive.size);
        }
        tools.index.restored(job.workspace, &report.marker);
        Ok(())
    }
}

impl Restore {
    /// The marker of a volume that was lost must be gone, and known to be, before there is another: whoever
    /// observes both takes them for a home.
    async fn forget_lost(&self, job: &Job, archive: &ArchiveMarker) -> Result<(), Failure> {
        let tools = &self.tools;
        let volume = home::made(tools, job).await?;
        let root = volume.as_ref().map(home::root).transpose()?;
        tools.still_led(job)?;
        let key = &self.archive_key;
        let lost = unpack::forget_lost(&tools.store, key, archive, root, job.op_id).await?;
        if let Some(marker) = lost {
            tools.index.deleted(&marker);
        }
        Ok(())
    }
}
