//! `windlass workspace watch`: what changes, line by line, for as long as somebody looks.

use std::time::Duration;

use chrono::Utc;
use tonic::{Code, Status, Streaming};
use windlass_proto::v1;

use crate::args::Output;
use crate::client::Client;
use crate::error::CliError;
use crate::output::{self, json, outln};
use crate::resolve::{self, Scope};
use crate::wait;

/// Until a watch that ended is resumed: from the one to the other, as long as nobody answers.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Follows one workspace, or all, until what cannot be resumed.
pub async fn run(client: &Client, id: Option<String>, output: Output) -> Result<(), CliError> {
    let id = match id {
        Some(text) => resolve::workspace(client, &text, Scope::Deleted).await?.id,
        None => String::new(),
    };
    let mut resume_token = String::new();
    // None until it was open once: what cannot begin fails at once, what ended is resumed.
    let mut pause: Option<Duration> = None;
    loop {
        let message = v1::WatchWorkspacesRequest {
            id: id.clone(),
            resume_token: resume_token.clone(),
        };
        let ended = match client.workspaces()?.watch_workspaces(message).await {
            Ok(answer) => {
                let now = pause.get_or_insert(FIRST_PAUSE);
                print_changes(answer.into_inner(), &mut resume_token, now, output).await
            }
            Err(status) => Err(status),
        };
        match (ended, pause) {
            // Too old to resume from: begin with the current state.
            (Err(status), _)
                if status.code() == Code::InvalidArgument && !resume_token.is_empty() =>
            {
                resume_token.clear();
            }
            (Err(status), Some(now)) if wait::passing(&status) => {
                eprintln!(
                    "windlass: the watch is lost, trying again: {}",
                    status.message()
                );
                tokio::time::sleep(now).await;
                pause = Some((now * 2).min(LONGEST_PAUSE));
            }
            (Err(status), _) => return Err(client.api_error()(status)),
            (Ok(()), _) => tokio::time::sleep(FIRST_PAUSE).await,
        }
    }
}

/// Prints what a stream tells, to its end.
async fn print_changes(
    mut stream: Streaming<v1::WatchWorkspacesResponse>,
    resume_token: &mut String,
    pause: &mut Duration,
    output: Output,
) -> Result<(), Status> {
    while let Some(message) = stream.message().await? {
        *pause = FIRST_PAUSE;
        if let Some(workspace) = &message.workspace {
            print_change(workspace, output);
        }
        if !message.resume_token.is_empty() {
            *resume_token = message.resume_token;
        }
    }
    Ok(())
}

fn print_change(w: &v1::Workspace, output: Output) {
    match output {
        // One document per line.
        Output::Json => outln!("{}", json::workspace(w)),
        Output::Id => outln!("{}", w.id),
        Output::Table => {
            let now = Utc::now().format("%H:%M:%S");
            let (phase, desired) = (output::phase(w), output::desired(w));
            let mut line = format!("{now}  {}  {phase}  desired {desired}", w.name);
            if w.operation() != v1::Operation::None {
                line = format!("{line}  {}", output::operation(w));
            }
            if !w.error_reason.is_empty() {
                line = format!("{line}  {}: {}", w.error_reason, w.error_message);
            }
            outln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Script};

    async fn watched(scripts: Vec<Script>) -> (String, Vec<String>) {
        let fake = Fake {
            scripts: std::sync::Mutex::new(scripts.into()),
            ..Fake::default()
        };
        let (client, fake) = fake.serve().await;
        let error = run(&client, None, Output::Id).await.unwrap_err();
        let resumed = fake.resumed.lock().unwrap().clone();
        (error.to_string(), resumed)
    }

    #[tokio::test]
    async fn a_watch_that_was_open_outlives_the_api() {
        let told = |token: &str| {
            Ok(vec![v1::WatchWorkspacesResponse {
                resume_token: token.to_owned(),
                ..v1::WatchWorkspacesResponse::default()
            }])
        };
        let (error, resumed) = watched(vec![
            told("here"),
            Err(Status::unavailable("restarts")),
            Err(Status::invalid_argument("too old")),
            told("there"),
            Err(Status::unauthenticated("revoked")),
        ])
        .await;
        assert!(error.contains("revoked"), "{error}");
        assert_eq!(resumed, ["", "here", "here", "", "there"]);
        let (error, resumed) = watched(vec![Err(Status::unavailable("not up"))]).await;
        assert!(error.contains("not up"), "{error}");
        assert_eq!(resumed, [""]);
    }
}
