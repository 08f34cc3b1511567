//! What the commands for those who run Windlass take: `host`, `gc`, `recover` and `rebuild`.

use clap::{Args, Subcommand};

/// Commands on hosts.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List hosts
    #[command(visible_alias = "ls")]
    List,
    /// Add a host, or give it a new address
    Register {
        /// Lower-case letters, digits and hyphens
        name: String,
        /// URL of its agent
        address: String,
    },
    /// Keep new workspaces away from a host
    Cordon {
        /// UUID or name
        id: String,
    },
    /// Let a host take new workspaces again
    Uncordon {
        /// UUID or name
        id: String,
    },
}

/// Commands on the garbage collection.
#[derive(Debug, Subcommand)]
pub enum GcCommand {
    /// Show what a pass would do now, and why
    Plan,
    /// Make a pass now
    Run {
        /// Delete even if that is more than 20 % of all archives
        #[arg(long)]
        override_breaker: bool,
    },
}

/// A way out of ERROR.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("accept").args(["archive", "start_empty", "adopt_volume"])))]
pub struct RecoverArgs {
    /// UUID, name or unique prefix
    pub id: String,
    /// For DataLost, and ArchiveCorrupted where the home is an archive: restore this one, by its key or its place in
    /// `windlass ws archives ID`, 1 being the newest
    #[arg(long, value_name = "KEY|N")]
    pub archive: Option<String>,
    /// For DataLost: give the home up and start with an empty one
    #[arg(long)]
    pub start_empty: bool,
    /// For DataLost: take the volume that is there now as the home, whatever is in it
    #[arg(long)]
    pub adopt_volume: bool,
}

/// What is rebuilt.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// From the archives' commit markers, which say whose homes they are
    #[arg(long, required = true)]
    pub from_bucket: bool,
    /// Do it
    #[arg(long)]
    pub apply: bool,
    /// Also take back deletions of workspaces whose home is still there
    #[arg(long)]
    pub include_deleted: bool,
}
