//! The command line: every flag, its variable, and what `--help` says.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::{Ttl, parse_bytes, parse_cpu, parse_duration, parse_interval, parse_ttl};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or the workspace is in ERROR
  2  wrong usage, or the server refused an argument
  3  not found
  4  a server cannot be reached
  5  it took longer than --timeout

Without WINDLASS_TOKEN, addresses and token are read from the nearest .windlass/env in this folder or
above it, where `windlass up` writes them.";

/// Development workspaces: a container and a home, kept whether or not anybody uses them.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub connection: Connection,

    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// Fields and enum words as in the protocol, times in RFC 3339
    Json,
    /// Ids only, one per line
    Id,
}

/// Where the servers are.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// The api [default: http://127.0.0.1:7400]
    #[arg(long, global = true, env = "WINDLASS_ADDR", value_name = "URL")]
    pub addr: Option<String>,
    /// A user's token
    #[arg(
        long,
        global = true,
        env = "WINDLASS_TOKEN",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, global = true, env = "WINDLASS_TOKEN_FILE", value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// The services' own token, for `gc`, `recover` and `doctor` [default: --token]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_SERVICE_TOKEN",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub service_token: Option<String>,
    /// File that holds the services' own token
    #[arg(
        long,
        global = true,
        env = "WINDLASS_SERVICE_TOKEN_FILE",
        value_name = "PATH"
    )]
    pub service_token_file: Option<PathBuf>,
    /// The agent [default: http://127.0.0.1:7401]
    #[arg(long, global = true, env = "WINDLASS_AGENT_ADDR", value_name = "URL")]
    pub agent_addr: Option<String>,
    /// The observer [default: http://127.0.0.1:7402]
    #[arg(
        long,
        global = true,
        env = "WINDLASS_OBSERVER_ADDR",
        value_name = "URL"
    )]
    pub observer_addr: Option<String>,
    /// The workspace controller [default: http://127.0.0.1:7403]
    #[arg(long, global = true, env = "WINDLASS_WC_ADDR", value_name = "URL")]
    pub wc_addr: Option<String>,
    /// The TTL runner [default: http://127.0.0.1:7404]
    #[arg(long, global = true, env = "WINDLASS_TTL_ADDR", value_name = "URL")]
    pub ttl_addr: Option<String>,
    /// The garbage collector [default: http://127.0.0.1:7405]
    #[arg(long, global = true, env = "WINDLASS_GC_ADDR", value_name = "URL")]
    pub gc_addr: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Workspaces
    #[command(visible_alias = "ws", subcommand)]
    Workspace(WorkspaceCommand),
    /// Archives of workspaces, without starting them
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Hosts: Docker engines with an agent
    #[command(subcommand)]
    Host(HostCommand),
    /// The garbage collection of archives
    #[command(subcommand)]
    Gc(GcCommand),
    /// Take a workspace out of ERROR
    Recover(RecoverArgs),
    /// Make the rows of workspaces that the bucket knows and the database does not; tells only, unless --apply
    Rebuild(RebuildArgs),
    /// Check every part of Windlass, and say what to do about what is wrong (exit code 1 then)
    Doctor,
    /// Run the whole system on this machine's loopback until Ctrl-C
    Up(UpArgs),
    /// Print the completion script of a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// What `up` lets root do for it
    #[command(hide = true)]
    UpRoot(UpRootArgs),
}

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

/// Commands on archives.
#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// Write an archive, a .tar.zst, to a file; it is verified on the way
    Download(DownloadArgs),
    /// Read archives back and compare size and digest with their markers (exit code 1 if one differs)
    Verify(VerifyArgs),
}

/// Which archive goes where.
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// UUID, name or unique prefix of the workspace; deleted ones too
    pub id: String,
    /// Its key, or its place in `windlass ws archives ID`, 1 being the newest [default: 1]
    #[arg(long, value_name = "KEY|N")]
    pub archive: Option<String>,
    /// Where to; - is standard output
    #[arg(short, long, value_name = "PATH")]
    pub file: PathBuf,
    /// Replace the file if there is one
    #[arg(long)]
    pub force: bool,
}

/// Which archives are read back.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// UUID, name or unique prefix of the workspace; deleted ones too
    pub id: String,
    /// Its key, or its place in `windlass ws archives ID`, 1 being the newest [default: 1]
    #[arg(long, value_name = "KEY|N", conflicts_with = "all")]
    pub archive: Option<String>,
    /// Every archive that is listed
    #[arg(long)]
    pub all: bool,
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
    /// For DataLost: restore this archive, one of `windlass ws archives ID`
    #[arg(long, value_name = "KEY")]
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

/// Where `up` keeps things.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Folder of everything it keeps
    #[arg(
        long,
        env = "WINDLASS_UP_STATE_DIR",
        default_value = ".windlass",
        value_name = "DIR"
    )]
    pub state_dir: PathBuf,
    /// Port of the api; the other services follow on the next ports, metrics on the same + 100
    #[arg(long, env = "WINDLASS_UP_PORT_BASE", default_value_t = 7400, value_name = "PORT",
          value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub port_base: u16,
    /// Port of PostgreSQL [default: a free one, kept]
    #[arg(long, env = "WINDLASS_UP_POSTGRES_PORT", value_name = "PORT")]
    pub postgres_port: Option<u16>,
    /// Port of Redis [default: a free one, kept]
    #[arg(long, env = "WINDLASS_UP_REDIS_PORT", value_name = "PORT")]
    pub redis_port: Option<u16>,
    /// Port of the S3 store [default: a free one, kept]
    #[arg(long, env = "WINDLASS_UP_S3_PORT", value_name = "PORT")]
    pub s3_port: Option<u16>,
}

/// See `up/root.rs`.
#[derive(Debug, Args)]
pub struct UpRootArgs {
    /// Whose helper this is
    #[arg(long)]
    pub parent: i32,
    /// What to run
    #[arg(long)]
    pub job: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound_and_tells_the_exit_codes() {
        Cli::command().debug_assert();
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("5  it took longer"), "{help}");
        assert!(!help.contains("up-root"), "{help}");
    }

    #[test]
    fn short_names_and_global_flags_anywhere() {
        let cli = parse("windlass ws start demo -o json --no-wait --addr http://x:1").unwrap();
        assert_eq!(cli.output, Output::Json);
        assert_eq!(cli.connection.addr.as_deref(), Some("http://x:1"));
        let Command::Workspace(WorkspaceCommand::Start(start)) = cli.command else {
            panic!("not a start");
        };
        assert!(start.wait.no_wait);
        assert_eq!(start.wait.timeout, Duration::from_secs(1800));
    }

    #[test]
    fn create_reads_its_values() {
        let cli = parse(
            "windlass workspace create demo --desired archived --cpu 1.5 --memory 2GiB --pids 100 \
             --standby-ttl never --archive-ttl 7d --checkpoint-interval 15m --request-id 0b1f34bd-6ac7-4f15-9a8b-2b4c3c1e7a01",
        )
        .unwrap();
        let Command::Workspace(WorkspaceCommand::Create(create)) = cli.command else {
            panic!("not a create");
        };
        assert_eq!(create.desired, Desired::Archived);
        assert_eq!(create.limits.cpu, Some(1500));
        assert_eq!(create.limits.memory, Some(2 << 30));
        assert_eq!(create.ttls.standby_ttl, Some(Ttl::Never));
        let interval = create.checkpoints.checkpoint_interval;
        assert_eq!(interval, Some(Duration::from_secs(900)));
        assert!(create.request_id.is_some());
    }

    #[test]
    fn only_one_way_out_of_data_loss() {
        assert!(parse("windlass recover demo --start-empty").is_ok());
        assert!(parse("windlass recover demo").is_ok());
        assert!(parse("windlass recover demo --start-empty --adopt-volume").is_err());
        assert!(parse("windlass recover demo --archive k --adopt-volume").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "windlass archive download x",
            "windlass rebuild",
            "windlass rebuild --apply",
            "windlass archive verify x --all --archive 1",
            "windlass",
            "windlass ws create",
            "windlass ws create x --cpu lots",
            "windlass ws create x --request-id 7",
            "windlass ws keep-awake x tomorrow",
            "windlass up --port-base 65500",
            "windlass -o yaml ws list",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
