//! What `windlass up` takes.

use std::path::PathBuf;

use clap::Args;

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
