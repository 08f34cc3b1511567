//! The home as one verified object. The volume stays.

use std::sync::Arc;

use tracing::Instrument;
use uuid::Uuid;
use windlass_archive::pack::{self, ArchiveSpec};
use windlass_proto::v1;

use super::{Tools, count_bytes, home};
use crate::error::Failure;
use crate::jobs::{Job, Kind, Task};

/// Archives the home volume.
#[derive(Debug)]
pub struct Archive {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// The home's volume_id.
    pub volume_id: Uuid,
    /// Written into the marker.
    pub label: v1::WorkspaceLabel,
}

impl Task for Archive {
    const KIND: Kind = Kind::Archive;

    async fn check(&self, job: &Job) -> Result<(), Failure> {
        let volume = home::require(&self.tools, job.workspace, self.volume_id).await?;
        home::at_rest(&self.tools, &volume.name).await
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        let tools = &self.tools;
        let volume = home::require(tools, job.workspace, self.volume_id).await?;
        home::at_rest(tools, &volume.name).await?;
        let spec = ArchiveSpec {
            volume_id: Some(self.volume_id),
            ..tools.archive_spec(job, &self.label)
        };
        let root = home::root(&volume)?;
        let (progress, cancel) = (job.progress.archive(), job.cancel.clone());
        let marker = pack::archive(&tools.store, root, spec, progress, cancel)
            .instrument(tracing::info_span!("s3 upload"))
            .await?;
        count_bytes("archived", marker.size);
        tools.index.archived(&marker);
        Ok(())
    }
}
