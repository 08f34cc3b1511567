//! `windlass rebuild`.

use chrono::Utc;
use serde_json::json;
use windlass_proto::v1;

use crate::args::{Output, RebuildArgs};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, json, outln, table};

/// Tells what would be done, or does it.
pub async fn run(client: &Client, args: RebuildArgs, output: Output) -> Result<(), CliError> {
    let request = v1::RebuildWorkspacesRequest {
        apply: args.apply,
        include_deleted: args.include_deleted,
    };
    // A large bucket takes its time to list: no deadline.
    let answer = client.workspaces()?.rebuild_workspaces(request).await;
    let mut stream = answer.map_err(client.api_error())?.into_inner();
    let mut all = v1::RebuildWorkspacesResponse::default();
    while let Some(chunk) = stream.message().await.map_err(client.api_error())? {
        all.workspaces.extend(chunk.workspaces);
        all.unknown_volumes.extend(chunk.unknown_volumes);
        all.damaged_markers.extend(chunk.damaged_markers);
        all.applied |= chunk.applied;
    }
    match output {
        Output::Json => output::print_json(&json!({
            "applied": all.applied,
            "workspaces": all.workspaces.iter().map(json::rebuilt).collect::<Vec<_>>(),
            "unknown_volumes": all.unknown_volumes.iter().map(json::unknown_volume).collect::<Vec<_>>(),
            "damaged_markers": all.damaged_markers,
        })),
        Output::Id => {
            let made = all.workspaces.iter().filter(|w| is_changed(w));
            made.for_each(|w| outln!("{}", w.id));
        }
        Output::Table => print(&all),
    }
    Ok(())
}

fn is_changed(w: &v1::RebuiltWorkspace) -> bool {
    matches!(
        w.action(),
        v1::RebuildAction::Create | v1::RebuildAction::Undelete
    )
}

fn print(all: &v1::RebuildWorkspacesResponse) {
    if !all.workspaces.is_empty() {
        outln!("{}\n", table::rebuilt(&all.workspaces, Utc::now()));
    }
    if !all.unknown_volumes.is_empty() {
        outln!("volumes of workspaces that have no row; nothing is done about them:");
        outln!("{}\n", table::unknown_volumes(&all.unknown_volumes));
    }
    if !all.damaged_markers.is_empty() {
        outln!(
            "markers that make no archive (unreadable, or their data is missing or of another size):"
        );
        all.damaged_markers.iter().for_each(|key| outln!("{key}"));
        outln!("");
    }
    let count = |wanted: fn(&v1::RebuiltWorkspace) -> bool| {
        all.workspaces.iter().filter(|w| wanted(w)).count()
    };
    let made = count(is_changed);
    let conflicts = count(|w| w.action() == v1::RebuildAction::Conflict);
    let words = match all.applied {
        true => "were rebuilt",
        false => "would be rebuilt",
    };
    outln!(
        "{made} of {} workspaces in the bucket {words}, {conflicts} conflicts",
        all.workspaces.len()
    );
    if !all.applied && made > 0 {
        outln!("nothing was changed; run it again with --apply");
    }
}
