//! The home as one verified object while its container runs. It is crash-consistent, and its marker says so:
//! nothing is ever removed on its word.

use std::sync::Arc;

use uuid::Uuid;
use windlass_archive::pack::{self, ArchiveSpec};
use windlass_proto::v1;

use super::{Tools, count_bytes, home};
use crate::error::Failure;
use crate::jobs::{Job, Kind, Task};

/// One thread packs: the workspace that is running goes first.
const THREADS: u32 = 1;

/// Archives the home volume as it is.
#[derive(Debug)]
pub struct Checkpoint {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// The home's volume_id.
    pub volume_id: Uuid,
    /// Written into the marker.
    pub label: v1::WorkspaceLabel,
}

impl Task for Checkpoint {
    const KIND: Kind = Kind::Checkpoint;

    async fn check(&self, job: &Job) -> Result<(), Failure> {
        home::require(&self.tools, job.workspace, self.volume_id).await?;
        Ok(())
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        let tools = &self.tools;
        let volume = home::require(tools, job.workspace, self.volume_id).await?;
        let spec = ArchiveSpec {
            volume_id: Some(self.volume_id),
            crash_consistent: true,
            threads: THREADS,
            ..tools.archive_spec(job, &self.label)
        };
        let root = home::root(&volume)?;
        let (progress, cancel) = (job.progress.archive(), job.cancel.clone());
        let archiving = pack::archive(&tools.store, root, spec, progress, cancel);
        // Dropped, not only asked to end: it gives way while the store hangs, too. What it leaves is loose,
        // and gc's.
        let marker = tokio::select! {
            biased;
            () = job.cancel.cancelled() => return Err(Failure::action("cancelled")),
            marker = archiving => marker?,
        };
        count_bytes("archived", marker.size);
        tools.index.archived(&marker);
        Ok(())
    }
}
