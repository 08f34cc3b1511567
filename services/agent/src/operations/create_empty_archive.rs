//! An archive of an empty home, for a workspace that is to begin archived.

use std::sync::Arc;

use windlass_archive::pack;
use windlass_proto::v1;

use super::{Tools, count_bytes};
use crate::error::Failure;
use crate::jobs::{Job, Kind, Task};

/// Makes an archive of an empty home.
#[derive(Debug)]
pub struct CreateEmptyArchive {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// Written into the marker.
    pub label: v1::WorkspaceLabel,
}

impl Task for CreateEmptyArchive {
    const KIND: Kind = Kind::CreateEmptyArchive;

    async fn check(&self, _: &Job) -> Result<(), Failure> {
        Ok(())
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        let spec = self.tools.archive_spec(job, &self.label);
        let marker = pack::empty_archive(&self.tools.store, spec).await?;
        count_bytes("archived", marker.size);
        self.tools.index.archived(&marker);
        Ok(())
    }
}
