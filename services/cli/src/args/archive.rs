//! What `windlass archive` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
