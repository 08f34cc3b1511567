//! What `windlass workspace` takes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::values::{Ttl, parse_bytes, parse_cpu, parse_duration, parse_interval, parse_ttl};

/// Commands on workspaces. An ID is a UUID, a name, or a unique prefix of either.
#[derive(Debug, Subcommand)]
pub enum WorkspaceCommand {
    /// Create a workspace, and wait until it is what is desired
    Create(CreateArgs),
    /// List workspaces
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one workspace
    Get(IdArgs),
    /// Bring it to RUNNING: a container on the home volume
    Start(MoveArgs),
    /// Bring it to STANDBY: the home volume only
    Stop(MoveArgs),
    /// Bring it to ARCHIVED: the home in the archive store only
    Archive(MoveArgs),
    /// Change its name, description, image, limits, TTLs or checkpoints
    Update(UpdateArgs),
    /// Delete it; its home is archived first and can come back with `undelete` until it is collected
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Take a deletion back
    Undelete {
        /// UUID, name or unique prefix of the UUID
        id: String,
    },
    /// Make an archive the home again; what is the home now is archived first
    Restore(RestoreArgs),
    /// Follow one workspace, or all
    Watch {
        /// UUID, name or unique prefix; all without it
        id: Option<String>,
    },
    /// Say why it is as it is, what comes next, and what stands in the way
    Explain(IdArgs),
    /// Keep the TTL rules away from it for a while
    KeepAwake {
        /// UUID, name or unique prefix
        id: String,
        /// How long from now, at most 7d; 0 ends the lease
        #[arg(value_parser = parse_duration, default_value = "1h")]
        duration: Duration,
    },
    /// List its archives, newest first
    Archives(IdArgs),
}

/// One workspace.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// UUID, name or unique prefix
    pub id: String,
}

/// Whether and how long to wait.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Return as soon as the wish is stored
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait; the work goes on after that
    #[arg(long, value_parser = parse_duration, default_value = "30m", value_name = "DURATION")]
    pub timeout: Duration,
}

/// A new desired state.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// UUID, name or unique prefix
    pub id: String,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What a workspace can be asked to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Desired {
    /// A container on the home volume
    Running,
    /// The home volume only
    Standby,
    /// The home in the archive store only
    Archived,
}

/// Upper bounds.
#[derive(Debug, Clone, Copy, Args)]
pub struct LimitArgs {
    /// Processors, such as 1.5 or 500m; 0: the host's default
    #[arg(long, value_parser = parse_cpu, value_name = "CORES")]
    pub cpu: Option<u32>,
    /// Memory, such as 512MiB; 0: the host's default
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES")]
    pub memory: Option<u64>,
    /// Processes and threads; 0: the host's default
    #[arg(long)]
    pub pids: Option<u32>,
}

/// Idle times.
#[derive(Debug, Clone, Copy, Args)]
pub struct TtlArgs {
    /// Idle time until it is stopped: 10m, never or default
    #[arg(long, value_parser = parse_ttl, value_name = "TTL")]
    pub standby_ttl: Option<Ttl>,
    /// Time stopped until it is archived: 30m, never or default
    #[arg(long, value_parser = parse_ttl, value_name = "TTL")]
    pub archive_ttl: Option<Ttl>,
}

/// Archives of a workspace that runs.
#[derive(Debug, Clone, Copy, Args)]
pub struct CheckpointArgs {
    /// How old its newest archive may become while it runs, 1m to 30d: then it is archived without a stop;
    /// or off
    #[arg(long, value_parser = parse_interval, value_name = "DURATION")]
    pub checkpoint_interval: Option<Duration>,
}

/// A new workspace.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Lower-case letters, digits and hyphens, beginning with a letter; at most 63
    pub name: String,
    /// Image of its container; the server's default without it
    #[arg(long)]
    pub image: Option<String>,
    /// Free text
    #[arg(long, default_value = "", hide_default_value = true)]
    pub description: String,
    /// What it shall be
    #[arg(long, value_enum, default_value_t = Desired::Running)]
    pub desired: Desired,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub ttls: TtlArgs,
    #[command(flatten)]
    pub checkpoints: CheckpointArgs,
    /// A UUID of yours: a repeated create with it returns the first workspace
    #[arg(long, value_name = "UUID")]
    pub request_id: Option<uuid::Uuid>,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Which workspaces.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Such as 'phase = RUNNING AND name = "demo*"'
    #[arg(long)]
    pub filter: Option<String>,
    /// create_time, name, update_time or last_access_time, with ' desc' for descending
    #[arg(long, value_name = "FIELD")]
    pub order_by: Option<String>,
    /// List deleted ones too
    #[arg(long)]
    pub deleted: bool,
    /// At most this many
    #[arg(long)]
    pub limit: Option<usize>,
}

/// What changes.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// UUID, name or unique prefix
    pub id: String,
    /// New name
    #[arg(long)]
    pub name: Option<String>,
    /// New description
    #[arg(long)]
    pub description: Option<String>,
    /// New image, from the next start on; empty: the server's default
    #[arg(long)]
    pub image: Option<String>,
    /// What it shall be; does not wait
    #[arg(long, value_enum)]
    pub desired: Option<Desired>,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub ttls: TtlArgs,
    #[command(flatten)]
    pub checkpoints: CheckpointArgs,
    /// Refuse if it changed since it had this etag
    #[arg(long)]
    pub etag: Option<String>,
}

/// Which archive becomes the home.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// UUID, name or unique prefix
    pub id: String,
    /// Its key, or its place in `windlass ws archives ID`, 1 being the newest
    #[arg(long, value_name = "KEY|N", required_unless_present = "latest")]
    pub archive: Option<String>,
    /// The newest one: what changed since is archived, and taken back
    #[arg(long, conflicts_with = "archive")]
    pub latest: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// A deletion.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// UUID, name or unique prefix of the UUID
    pub id: String,
    /// Do not archive the home first: what is only on the volume is lost
    #[arg(long)]
    pub discard_home: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}
