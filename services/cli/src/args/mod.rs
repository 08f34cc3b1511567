//! The command line: every flag, its variable, and what `--help` says. Here is what goes for every command; what
//! each of them takes is below.

mod archive;
mod services;
mod up;
mod workspace;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use archive::{ArchiveCommand, DownloadArgs, VerifyArgs};
pub use services::{GcCommand, HostCommand, RebuildArgs, RecoverArgs};
pub use up::{UpArgs, UpRootArgs};
pub use workspace::{
    CreateArgs, DeleteArgs, Desired, LimitArgs, ListArgs, MoveArgs, RestoreArgs, UpdateArgs,
    WaitArgs, WorkspaceCommand,
};

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

#[cfg(test)]
mod tests;
