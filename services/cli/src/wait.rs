//! Waiting until a workspace is what was asked for.
//!
//! The stream's last state decides, whatever came between. A stream that ends (a server that restarts)
//! is resumed until the time is over: kill -9 of the api is an ordinary event.

mod goal;

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use windlass_proto::v1;

use crate::client::Client;
use crate::error::CliError;
use crate::output::phase;
use crate::output::progress::Display;
use goal::{Verdict, broken, judge};

pub use goal::{Goal, advice};

/// Between attempts to open the stream again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an ERROR of before the call may stay: a changed image, say, is judged anew shortly.
const ERROR_GRACE: Duration = Duration::from_secs(3);

/// Whether another attempt may fare better than one that failed so: the server restarts, say.
pub fn passing(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::DeadlineExceeded
    )
}

/// Waits until `goal`, showing the way there; returns the workspace as it is then.
pub async fn until(
    client: &Client,
    start: &v1::Workspace,
    goal: Goal,
    timeout: Duration,
) -> Result<v1::Workspace, CliError> {
    until_with(client, start, goal, timeout, ERROR_GRACE).await
}

async fn until_with(
    client: &Client,
    start: &v1::Workspace,
    goal: Goal,
    timeout: Duration,
    error_grace: Duration,
) -> Result<v1::Workspace, CliError> {
    let mut display = Display::new();
    display.show(start);
    let was_broken = start.phase() == v1::Phase::Error;
    let mut watch = Watch {
        client,
        id: &start.id,
        goal,
        error_deadline: Instant::now()
            + if was_broken {
                error_grace
            } else {
                Duration::ZERO
            },
        last: start.clone(),
    };
    let result = tokio::time::timeout(timeout, watch.run(&mut display)).await;
    let took = display.finish();
    match result {
        Ok(outcome) => outcome,
        Err(_) => Err(CliError::Timeout(format!(
            "{} is {} after {}; it goes on without us",
            watch.last.name,
            phase(&watch.last),
            crate::values::duration(took)
        ))),
    }
}

struct Watch<'a> {
    client: &'a Client,
    id: &'a str,
    goal: Goal,
    error_deadline: Instant,
    last: v1::Workspace,
}

impl Watch<'_> {
    async fn run(&mut self, display: &mut Display) -> Result<v1::Workspace, CliError> {
        let mut resume_token = String::new();
        loop {
            match self.follow(&mut resume_token, display).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(status) => match status.code() {
                    Code::NotFound if self.goal == Goal::Deleted => return Ok(self.last.clone()),
                    // Too old to resume from: begin with the current state.
                    Code::InvalidArgument if !resume_token.is_empty() => resume_token.clear(),
                    _ if passing(&status) => {}
                    _ => return Err(self.client.api_error()(status)),
                },
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads one stream to its end, or to the goal.
    async fn follow(
        &mut self,
        resume_token: &mut String,
        display: &mut Display,
    ) -> Result<Option<Result<v1::Workspace, CliError>>, tonic::Status> {
        let mut service = match self.client.workspaces() {
            Ok(service) => service,
            Err(error) => return Ok(Some(Err(error))),
        };
        let message = v1::WatchWorkspacesRequest {
            id: self.id.to_owned(),
            resume_token: resume_token.clone(),
        };
        let mut stream = service.watch_workspaces(message).await?.into_inner();
        loop {
            let grace =
                self.last.phase() == v1::Phase::Error && Instant::now() < self.error_deadline;
            let next = tokio::select! {
                next = stream.message() => next?,
                () = tokio::time::sleep_until(self.error_deadline), if grace => {
                    return Ok(Some(Err(CliError::Failed(broken(&self.last)))));
                }
            };
            let Some(message) = next else {
                return Ok(None);
            };
            if !message.resume_token.is_empty() {
                *resume_token = message.resume_token;
            }
            let Some(workspace) = message.workspace else {
                continue;
            };
            display.show(&workspace);
            self.last = workspace;
            match judge(&self.last, self.goal) {
                Verdict::Done => return Ok(Some(Ok(self.last.clone()))),
                Verdict::Going => {}
                Verdict::Superseded(why) => return Ok(Some(Err(CliError::Failed(why)))),
                Verdict::Broken(_) if Instant::now() < self.error_deadline => {}
                Verdict::Broken(why) => return Ok(Some(Err(CliError::Failed(why)))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::goal::tests::workspace;
    use super::*;

    fn message(w: &v1::Workspace, token: &str) -> v1::WatchWorkspacesResponse {
        v1::WatchWorkspacesResponse {
            workspace: Some(w.clone()),
            resume_token: token.to_owned(),
            synced: false,
        }
    }

    const PATIENCE: Duration = Duration::from_secs(30);
    const MOMENT: Duration = Duration::from_millis(200);

    async fn waited(
        scripts: Vec<crate::fake::Script>,
        start: &v1::Workspace,
        timeout: Duration,
        error_grace: Duration,
    ) -> (Result<v1::Workspace, CliError>, Vec<String>) {
        let fake = crate::fake::Fake {
            scripts: std::sync::Mutex::new(scripts.into()),
            ..Default::default()
        };
        let (client, fake) = fake.serve().await;
        let goal = Goal::Reached(v1::DesiredState::Running);
        let outcome = until_with(&client, start, goal, timeout, error_grace).await;
        let resumed = fake.resumed.lock().unwrap().clone();
        (outcome, resumed)
    }

    #[tokio::test]
    async fn a_stream_that_ends_is_resumed_where_it_was() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let standby = workspace(P::Standby, O::Starting, D::Running);
        let running = workspace(P::Running, O::None, D::Running);
        let scripts = vec![
            Ok(vec![message(&standby, "here")]),
            Err(tonic::Status::unavailable("draining")),
            Err(tonic::Status::invalid_argument("too old")),
            Ok(vec![message(&running, "there")]),
        ];
        let (outcome, resumed) = waited(scripts, &standby, PATIENCE, PATIENCE).await;
        assert_eq!(outcome.unwrap().phase(), P::Running);
        assert_eq!(resumed, ["", "here", "here", ""]);
    }

    #[tokio::test]
    async fn an_error_ends_it_but_an_old_one_gets_a_moment() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let standby = workspace(P::Standby, O::Starting, D::Running);
        let error = workspace(P::Error, O::None, D::Running);
        let running = workspace(P::Running, O::None, D::Running);
        let new = vec![Ok(vec![message(&error, ""), message(&running, "")])];
        let (outcome, _) = waited(new, &standby, PATIENCE, PATIENCE).await;
        assert_eq!(outcome.unwrap_err().exit_code(), 1);
        let old = vec![Ok(vec![message(&error, ""), message(&running, "")])];
        let (outcome, _) = waited(old, &error, PATIENCE, PATIENCE).await;
        assert_eq!(outcome.unwrap().phase(), P::Running);
        // The last script leaves the stream open: only the moment's end ends this.
        let (outcome, _) = waited(Vec::new(), &error, PATIENCE, MOMENT).await;
        assert_eq!(outcome.unwrap_err().exit_code(), 1);
    }

    #[tokio::test]
    async fn patience_ends_with_its_own_exit_code() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let standby = workspace(P::Standby, O::Starting, D::Running);
        let (outcome, _) = waited(Vec::new(), &standby, MOMENT, PATIENCE).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("demo is STANDBY"), "{error}");
    }
}
