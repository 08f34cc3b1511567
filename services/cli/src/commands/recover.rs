//! `windlass recover`: out of ERROR, on a person's word.

use windlass_proto::v1;
use windlass_proto::v1::recover_request::Accept;

use super::archive::{key_of, listed};
use crate::args::{Output, RecoverArgs};
use crate::client::{Client, request};
use crate::error::{CliError, reason_of};
use crate::output;
use crate::resolve::{self, Scope};
use crate::wait::advice;

/// Asks the workspace controller to go on.
pub async fn run(client: &Client, args: RecoverArgs, output: Output) -> Result<(), CliError> {
    let workspace = resolve::workspace(client, &args.id, Scope::Live).await?;
    let message = v1::RecoverRequest {
        id: workspace.id.clone(),
        accept: accept(client, &args, &workspace.id).await?,
        actor: actor(),
    };
    let answer = client.wc()?.recover(request(message)).await;
    let phase = answer
        .map_err(|status| {
            let error =
                CliError::from_status(&status, "workspace controller", &client.settings().wc);
            match reason_of(&status).as_str() {
                "ACCEPT_REQUIRED" => CliError::Failed(format!("{error}; {}", advice(&workspace))),
                _ => error,
            }
        })?
        .into_inner()
        .phase();
    let get = v1::GetWorkspaceRequest { id: workspace.id };
    let answer = client.workspaces()?.get_workspace(request(get)).await;
    let mut now = answer.map_err(client.api_error())?.into_inner();
    now.set_phase(phase);
    output::outcome(&now, output);
    Ok(())
}

async fn accept(client: &Client, args: &RecoverArgs, id: &str) -> Result<Option<Accept>, CliError> {
    Ok(match &args.archive {
        Some(wanted) => {
            let key = key_of(&listed(client, id).await?, Some(wanted))?;
            Some(Accept::ArchiveKey(key))
        }
        None if args.start_empty => Some(Accept::StartEmpty(true)),
        None if args.adopt_volume => Some(Accept::AdoptVolume(true)),
        None => None,
    })
}

/// Who we are, for the audit log.
fn actor() -> String {
    let user = std::env::var("USER").unwrap_or_default();
    let user: String = user.chars().take(100).collect();
    if user.is_empty() {
        "windlass recover".to_owned()
    } else {
        format!("{user} (windlass recover)")
    }
}
