//! `windlass workspace`.

use chrono::Utc;
use prost_types::FieldMask;
use windlass_proto::v1;

use super::{archive, confirmed, restore, watch};
use crate::args::{
    CreateArgs, DeleteArgs, Desired, LimitArgs, ListArgs, MoveArgs, Output, UpdateArgs, WaitArgs,
    WorkspaceCommand,
};
use crate::client::{Client, request};
use crate::error::CliError;
use crate::output::{self, json, outln, table};
use crate::resolve::{self, Scope};
use crate::values::{Ttl, relative, time, wire_duration};
use crate::wait::{self, Goal};

/// Runs one of them.
pub async fn run(
    client: &Client,
    command: WorkspaceCommand,
    output: Output,
) -> Result<(), CliError> {
    match command {
        WorkspaceCommand::Create(args) => create(client, args, output).await,
        WorkspaceCommand::List(args) => list(client, args, output).await,
        WorkspaceCommand::Get(args) => {
            let found = resolve::workspace(client, &args.id, Scope::Deleted).await?;
            output::workspace(&found, output);
            Ok(())
        }
        WorkspaceCommand::Start(args) => go(client, args, Desired::Running, output).await,
        WorkspaceCommand::Stop(args) => go(client, args, Desired::Standby, output).await,
        WorkspaceCommand::Archive(args) => go(client, args, Desired::Archived, output).await,
        WorkspaceCommand::Update(args) => update(client, args, output).await,
        WorkspaceCommand::Delete(args) => delete(client, args, output).await,
        WorkspaceCommand::Undelete { id } => {
            let id = resolve::workspace(client, &id, Scope::Gone).await?.id;
            let message = v1::UndeleteWorkspaceRequest { id };
            let answer = client
                .workspaces()?
                .undelete_workspace(request(message))
                .await;
            let back = answer.map_err(client.api_error())?.into_inner();
            output::outcome(&back, output);
            Ok(())
        }
        WorkspaceCommand::Restore(args) => restore::run(client, args, output).await,
        WorkspaceCommand::Watch { id } => watch::run(client, id, output).await,
        WorkspaceCommand::Explain(args) => {
            let id = resolve::workspace(client, &args.id, Scope::Deleted)
                .await?
                .id;
            let message = v1::ExplainWorkspaceRequest { id };
            let answer = client
                .workspaces()?
                .explain_workspace(request(message))
                .await;
            let explained = answer.map_err(client.api_error())?.into_inner();
            match output {
                Output::Json => output::print_json(&json::explain(&explained)),
                Output::Id => outln!("{}", explained.workspace.unwrap_or_default().id),
                Output::Table => outln!("{}", table::explain(&explained, Utc::now())),
            }
            Ok(())
        }
        WorkspaceCommand::KeepAwake { id, duration } => {
            let workspace = resolve::workspace(client, &id, Scope::Live).await?;
            let message = v1::KeepAwakeRequest {
                id: workspace.id.clone(),
                duration: Some(wire_duration(duration)),
            };
            let answer = client.workspaces()?.keep_awake(request(message)).await;
            let lease = answer.map_err(client.api_error())?.into_inner();
            match (output, time(lease.expire_time.as_ref())) {
                (Output::Json, _) => output::print_json(&json::keep_awake(&workspace.id, &lease)),
                (Output::Id, _) => outln!("{}", workspace.id),
                (Output::Table, Some(until)) => {
                    let when = relative(until, Utc::now());
                    outln!("{} is kept awake; the lease ends {when}", workspace.name);
                }
                (Output::Table, None) => outln!("{} has no lease any more", workspace.name),
            }
            Ok(())
        }
        WorkspaceCommand::Archives(args) => {
            let id = resolve::workspace(client, &args.id, Scope::Deleted)
                .await?
                .id;
            let archives = archive::listed(client, &id).await?;
            let table = |archives: &[_]| table::archives(archives, Utc::now());
            output::list(&archives, output, json::archive, |a| &a.key, table);
            Ok(())
        }
    }
}

fn wire_state(desired: Desired) -> v1::DesiredState {
    match desired {
        Desired::Running => v1::DesiredState::Running,
        Desired::Standby => v1::DesiredState::Standby,
        Desired::Archived => v1::DesiredState::Archived,
    }
}

fn wire_limits(limits: LimitArgs) -> v1::Limits {
    v1::Limits {
        cpu_millis: limits.cpu.unwrap_or(0),
        memory_bytes: limits.memory.unwrap_or(0),
        pids: limits.pids.unwrap_or(0),
    }
}

pub(super) async fn wait_and_print(
    client: &Client,
    workspace: v1::Workspace,
    goal: Goal,
    wait: WaitArgs,
    output: Output,
) -> Result<(), CliError> {
    let now = if wait.no_wait {
        workspace
    } else {
        wait::until(client, &workspace, goal, wait.timeout).await?
    };
    output::outcome(&now, output);
    Ok(())
}

async fn create(client: &Client, args: CreateArgs, output: Output) -> Result<(), CliError> {
    let desired = wire_state(args.desired);
    let message = v1::CreateWorkspaceRequest {
        workspace: Some(v1::Workspace {
            name: args.name,
            description: args.description,
            image: args.image.unwrap_or_default(),
            desired_state: desired.into(),
            standby_ttl: args.ttls.standby_ttl.and_then(Ttl::to_wire),
            archive_ttl: args.ttls.archive_ttl.and_then(Ttl::to_wire),
            checkpoint_interval: args.checkpoints.checkpoint_interval.map(wire_duration),
            limits: Some(wire_limits(args.limits)),
            ..v1::Workspace::default()
        }),
        request_id: args.request_id.map(|id| id.to_string()).unwrap_or_default(),
    };
    let answer = client
        .workspaces()?
        .create_workspace(request(message))
        .await;
    let created = answer.map_err(client.api_error())?.into_inner();
    if created.delete_time.is_some() {
        return Err(CliError::Failed(format!(
            "{} ({}) was created with this request id and is deleted since: use another one",
            created.name, created.id
        )));
    }
    // A repeated create answers with the workspace of then, which may be wanted otherwise by now.
    let goal = Goal::Reached(created.desired_state());
    wait_and_print(client, created, goal, args.wait, output).await
}

async fn list(client: &Client, args: ListArgs, output: Output) -> Result<(), CliError> {
    let filter = args.filter.unwrap_or_default();
    let order = args.order_by.unwrap_or_default();
    let found = resolve::list(client, &filter, &order, args.deleted, args.limit).await?;
    let table = |found: &[_]| table::workspaces(found, Utc::now());
    output::list(&found, output, json::workspace, |w| &w.id, table);
    Ok(())
}

async fn go(
    client: &Client,
    args: MoveArgs,
    desired: Desired,
    output: Output,
) -> Result<(), CliError> {
    let state = wire_state(desired);
    let before = resolve::workspace(client, &args.id, Scope::Live).await?;
    let wish = v1::Workspace {
        id: before.id,
        desired_state: state.into(),
        ..v1::Workspace::default()
    };
    let after = store(client, wish, vec!["desired_state".to_owned()]).await?;
    wait_and_print(client, after, Goal::Reached(state), args.wait, output).await
}

async fn store(
    client: &Client,
    workspace: v1::Workspace,
    paths: Vec<String>,
) -> Result<v1::Workspace, CliError> {
    let message = v1::UpdateWorkspaceRequest {
        workspace: Some(workspace),
        update_mask: Some(FieldMask { paths }),
    };
    let answer = client
        .workspaces()?
        .update_workspace(request(message))
        .await;
    Ok(answer.map_err(client.api_error())?.into_inner())
}

async fn update(client: &Client, args: UpdateArgs, output: Output) -> Result<(), CliError> {
    let (mut changed, paths) = changes(&args);
    if paths.is_empty() {
        return Err(CliError::Usage(
            "nothing to change: see windlass workspace update --help".to_owned(),
        ));
    }
    changed.id = resolve::workspace(client, &args.id, Scope::Live).await?.id;
    let after = store(client, changed, paths).await?;
    output::workspace(&after, output);
    Ok(())
}

/// The fields given, and their paths.
fn changes(args: &UpdateArgs) -> (v1::Workspace, Vec<String>) {
    let mut paths = Vec::new();
    let mut given = |path: &str, is_given: bool| {
        if is_given {
            paths.push(path.to_owned());
        }
    };
    given("name", args.name.is_some());
    given("description", args.description.is_some());
    given("image", args.image.is_some());
    given("desired_state", args.desired.is_some());
    given("standby_ttl", args.ttls.standby_ttl.is_some());
    given("archive_ttl", args.ttls.archive_ttl.is_some());
    given(
        "checkpoint_interval",
        args.checkpoints.checkpoint_interval.is_some(),
    );
    given("limits.cpu_millis", args.limits.cpu.is_some());
    given("limits.memory_bytes", args.limits.memory.is_some());
    given("limits.pids", args.limits.pids.is_some());
    let workspace = v1::Workspace {
        name: args.name.clone().unwrap_or_default(),
        description: args.description.clone().unwrap_or_default(),
        image: args.image.clone().unwrap_or_default(),
        desired_state: args.desired.map_or(0, |desired| wire_state(desired).into()),
        standby_ttl: args.ttls.standby_ttl.and_then(Ttl::to_wire),
        archive_ttl: args.ttls.archive_ttl.and_then(Ttl::to_wire),
        checkpoint_interval: args.checkpoints.checkpoint_interval.map(wire_duration),
        limits: Some(wire_limits(args.limits)),
        etag: args.etag.clone().unwrap_or_default(),
        ..v1::Workspace::default()
    };
    (workspace, paths)
}

async fn delete(client: &Client, args: DeleteArgs, output: Output) -> Result<(), CliError> {
    // Deleting again is no error, and may add discard_home.
    let scope = match args.discard_home {
        true => Scope::CarefulDeleted,
        false => Scope::Careful,
    };
    let before = resolve::workspace(client, &args.id, scope).await?;
    let lost = if args.discard_home {
        "; its home is lost"
    } else {
        ""
    };
    let question = format!("Delete {} ({}){lost}?", before.name, before.id);
    if !confirmed(&question, args.yes) {
        return Err(CliError::Failed("not deleted".to_owned()));
    }
    let message = v1::DeleteWorkspaceRequest {
        id: before.id,
        etag: String::new(),
        discard_home: args.discard_home,
    };
    let answer = client
        .workspaces()?
        .delete_workspace(request(message))
        .await;
    let after = answer.map_err(client.api_error())?.into_inner();
    wait_and_print(client, after, Goal::Deleted, args.wait, output).await
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::fake::Fake;

    fn parsed(line: &str) -> WorkspaceCommand {
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        match cli.command {
            Command::Workspace(command) => command,
            other => panic!("{other:?}"),
        }
    }

    fn update(line: &str) -> UpdateArgs {
        match parsed(line) {
            WorkspaceCommand::Update(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn workspace(id: &str, name: &str, deleted: bool) -> v1::Workspace {
        v1::Workspace {
            id: id.to_owned(),
            name: name.to_owned(),
            delete_time: deleted.then(prost_types::Timestamp::default),
            ..v1::Workspace::default()
        }
    }

    /// Runs a command; its exit code, and the ids that were deleted.
    async fn ran(workspaces: &[v1::Workspace], line: &str) -> (u8, Vec<String>) {
        let fake = Fake {
            workspaces: workspaces.to_vec(),
            ..Fake::default()
        };
        let (client, fake) = fake.serve().await;
        let result = run(&client, parsed(line), Output::Id).await;
        let deleted = fake.deleted.lock().unwrap().clone();
        (
            result.map_or_else(|error| error.exit_code(), |()| 0),
            deleted,
        )
    }

    #[tokio::test]
    async fn discarding_a_home_takes_no_prefix_of_a_name() {
        let all = [
            workspace("0b1f34bd", "demo", false),
            workspace("1b1f34bd", "gone", true),
        ];
        let rm = |text: &str| format!("windlass ws rm {text} --discard-home --yes --no-wait");
        for nobody in ["dem", "gon"] {
            assert_eq!(ran(&all, &rm(nobody)).await, (3, vec![]), "{nobody}");
        }
        for (text, id) in [
            ("demo", "0b1f34bd"),
            ("gone", "1b1f34bd"),
            ("1b1f", "1b1f34bd"),
        ] {
            assert_eq!(
                ran(&all, &rm(text)).await,
                (0, vec![id.to_owned()]),
                "{text}"
            );
        }
        assert_eq!(ran(&all, "windlass ws undelete demo").await.0, 3);
    }

    #[tokio::test]
    async fn a_create_whose_workspace_is_deleted_since_fails_at_once() {
        let all = [workspace("1b1f34bd", "gone", true)];
        let create = "windlass ws create gone --request-id 0b1f34bd-6ac7-4f15-9a8b-2b4c3c1e7a01";
        assert_eq!(ran(&all, create).await.0, 1);
        assert_eq!(ran(&all, &format!("{create} --no-wait")).await.0, 1);
    }

    #[test]
    fn the_mask_names_what_was_given_and_nothing_else() {
        let args = update("windlass ws update x --image a:1 --standby-ttl default --memory 1GiB");
        let (workspace, paths) = changes(&args);
        assert_eq!(paths, ["image", "standby_ttl", "limits.memory_bytes"]);
        assert_eq!(workspace.standby_ttl, None);
        assert_eq!(workspace.limits.unwrap().memory_bytes, 1 << 30);
        let (workspace, paths) = changes(&update("windlass ws update x --checkpoint-interval off"));
        assert_eq!(paths, ["checkpoint_interval"]);
        assert_eq!(workspace.checkpoint_interval.unwrap().seconds, 0);
        let (_, nothing) = changes(&update("windlass ws update x"));
        assert!(nothing.is_empty());
    }
}
