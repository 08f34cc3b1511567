//! One file per group of commands; `restore` and `watch` are of `workspace`.

mod archive;
mod doctor;
mod gc;
mod host;
mod rebuild;
mod recover;
mod restore;
mod watch;
mod workspace;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::error::CliError;
use crate::output;
use crate::settings::Settings;
use crate::up;

/// Runs the command.
pub async fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let format = cli.output;
    let client = || Settings::load(&cli.connection).map(Client::new);
    match cli.command {
        Command::Workspace(command) => workspace::run(&client()?, command, format).await?,
        Command::Archive(command) => archive::run(&client()?, command, format).await?,
        Command::Host(command) => host::run(&client()?, command, format).await?,
        Command::Gc(command) => gc::run(&client()?, command, format).await?,
        Command::Rebuild(args) => rebuild::run(&client()?, args, format).await?,
        Command::Recover(args) => recover::run(&client()?, args, format).await?,
        Command::Doctor => return doctor::run(&client()?, format).await,
        Command::Completion { shell } => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "windlass", &mut script);
            output::write(&script);
        }
        Command::Up(args) => up::run(args).await?,
        Command::UpRoot(args) => up::root::run(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks a question on the terminal; where there is none, or with `yes`, the answer is yes.
fn confirmed(question: &str, yes: bool) -> bool {
    let stdin = std::io::stdin();
    if yes || !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return true;
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = stdin.read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
