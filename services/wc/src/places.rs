//! How many operations are at work at a time on one host. Those that move whole homes have few places: about
//! twice what an agent does of them at once, so that its next one is there when one ends, and whoever comes
//! after that waits here, where owners take turns and nothing has begun, and not in the agent.

use clap::{Args, builder::RangedU64ValueParser};
use windlass_domain::Operation;

/// Places, by kind of operation.
#[derive(Clone, Copy, Debug, Args)]
pub struct Places {
    /// Operations at work at a time on one host, of each kind but those below; others wait, and owners take turns
    #[arg(long, env = "WINDLASS_OPERATIONS_PER_HOST", default_value_t = 16, value_parser = at_least_one())]
    pub operations_per_host: usize,

    /// Archivings at work at a time on one host: best twice the agent's WINDLASS_MAX_ARCHIVE_JOBS
    #[arg(long, env = "WINDLASS_ARCHIVES_PER_HOST", default_value_t = 4, value_parser = at_least_one())]
    pub archives_per_host: usize,

    /// Restores at work at a time on one host: best twice the agent's WINDLASS_MAX_RESTORE_JOBS
    #[arg(long, env = "WINDLASS_RESTORES_PER_HOST", default_value_t = 4, value_parser = at_least_one())]
    pub restores_per_host: usize,

    /// Checkpoints at work at a time on one host: best twice the agent's WINDLASS_MAX_CHECKPOINT_JOBS
    #[arg(long, env = "WINDLASS_CHECKPOINTS_PER_HOST", default_value_t = 2, value_parser = at_least_one())]
    pub checkpoints_per_host: usize,
}

fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=100_000)
}

impl Places {
    /// Those of an operation.
    pub fn of(&self, operation: Operation) -> usize {
        match operation {
            Operation::Archiving => self.archives_per_host,
            Operation::Restoring => self.restores_per_host,
            Operation::Checkpointing => self.checkpoints_per_host,
            Operation::None
            | Operation::Provisioning
            | Operation::CreateEmptyArchive
            | Operation::Starting
            | Operation::Stopping
            | Operation::Deleting => self.operations_per_host,
        }
    }
}
