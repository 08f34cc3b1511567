//! An empty home volume.

use std::sync::Arc;

use uuid::Uuid;

use super::{Tools, home};
use crate::error::Failure;
use crate::jobs::{Job, Kind, Task};

/// Makes an empty home volume whose volume_id is the op_id.
#[derive(Debug)]
pub struct Provision {
    /// What it works with.
    pub tools: Arc<Tools>,
    /// The volume that makes room.
    pub replaces: Option<Uuid>,
}

impl Task for Provision {
    const KIND: Kind = Kind::Provision;
    const WAIT: bool = true;

    async fn check(&self, job: &Job) -> Result<(), Failure> {
        home::makeable(&self.tools, job, self.replaces).await
    }

    async fn run(&self, job: &Job) -> Result<(), Failure> {
        let volume = home::make(&self.tools, job, self.replaces).await?;
        home::give_if_empty(&self.tools, &home::root(&volume)?)
    }
}
