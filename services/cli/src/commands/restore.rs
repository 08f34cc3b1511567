//! `windlass workspace restore`: an archive becomes the home again.

use windlass_proto::v1;

use super::archive::{key_of, listed};
use super::workspace::wait_and_print;
use crate::args::{Output, RestoreArgs};
use crate::client::{Client, request};
use crate::error::CliError;
use crate::resolve::{self, Scope};
use crate::wait::Goal;

/// Stores the wish, and waits until the workspace is what is desired with that home.
pub async fn run(client: &Client, args: RestoreArgs, output: Output) -> Result<(), CliError> {
    let id = resolve::workspace(client, &args.id, Scope::Live).await?.id;
    // Without one it is the newest.
    let archive_key = key_of(&listed(client, &id).await?, args.archive.as_deref())?;
    let message = v1::RestoreWorkspaceRequest {
        id,
        archive_key,
        etag: String::new(),
    };
    let answer = client
        .workspaces()?
        .restore_workspace(request(message))
        .await;
    let after = answer.map_err(client.api_error())?.into_inner();
    let goal = Goal::Restored(after.desired_state());
    wait_and_print(client, after, goal, args.wait, output).await
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::args::{Cli, Command, WorkspaceCommand};

    #[test]
    fn exactly_one_archive_is_named() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        let cli = parse("windlass ws restore demo --archive 2 --no-wait").unwrap();
        let Command::Workspace(WorkspaceCommand::Restore(args)) = cli.command else {
            panic!("not a restore");
        };
        assert_eq!(args.archive.as_deref(), Some("2"));
        assert!(args.wait.no_wait);
        assert!(parse("windlass ws restore demo --latest").is_ok());
        assert!(parse("windlass ws restore demo").is_err());
        assert!(parse("windlass ws restore demo --latest --archive 1").is_err());
    }
}
