//! Waiting until a workspace is what was asked for.
//!
//! The stream's last state decides, whatever came between. A stream that ends (a server that restarts)
//! is resumed until the time is over: kill -9 of the api is an ordinary event.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use windlass_proto::v1;

use crate::client::Client;
use crate::error::CliError;
use crate::output::progress::Display;
use crate::output::{desired, phase};

/// Between attempts to open the stream again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an ERROR of before the call may stay: a changed image, say, is judged anew shortly.
const ERROR_GRACE: Duration = Duration::from_secs(3);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// This state, with nothing more in progress.
    Reached(v1::DesiredState),
    /// The same, after a restore that waits has been done.
    Restored(v1::DesiredState),
    /// Container and volume are gone.
    Deleted,
}

/// What a state means for a goal.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Done,
    Going,
    /// In ERROR.
    Broken(String),
    /// Somebody wants something else by now.
    Superseded(String),
}

fn judge(w: &v1::Workspace, goal: Goal) -> Verdict {
    // A checkpoint moves it nowhere.
    let idle = matches!(
        w.operation(),
        v1::Operation::None | v1::Operation::Checkpointing
    );
    let exists = |key: &str| {
        let condition = w.conditions.iter().find(|c| c.r#type == key);
        condition.is_some_and(|c| c.status() != v1::ConditionStatus::False)
    };
    match goal {
        Goal::Deleted => match w.phase() {
            v1::Phase::Deleted => Verdict::Done,
            v1::Phase::Deleting
                if idle
                    && !exists("infra.container_ready")
                    && !exists("storage.volume_ready")
                    && w.home.as_ref().map(v1::Home::location)
                        != Some(v1::HomeLocation::Volume) =>
            {
                Verdict::Done
            }
            _ if w.desired_state() != v1::DesiredState::Deleted && w.delete_time.is_none() => {
                Verdict::Superseded(format!("{} is not deleted any more", w.name))
            }
            _ => Verdict::Going,
        },
        Goal::Reached(wanted) | Goal::Restored(wanted) => {
            let waits = matches!(goal, Goal::Restored(_)) && !w.restore_key.is_empty();
            // Nobody waits for this by such a goal: the wish was of before the deletion.
            if w.desired_state() == v1::DesiredState::Deleted {
                return Verdict::Superseded(format!("{} is deleted by now", w.name));
            }
            if w.phase() == v1::Phase::Error {
                return Verdict::Broken(broken(w));
            }
            if w.desired_state() != wanted {
                let other = desired(w);
                return Verdict::Superseded(format!("{} is desired to be {other} by now", w.name));
            }
            let reached = matches!(
                (wanted, w.phase()),
                (v1::DesiredState::Running, v1::Phase::Running)
                    | (v1::DesiredState::Standby, v1::Phase::Standby)
                    | (v1::DesiredState::Archived, v1::Phase::Archived)
            );
            if reached && idle && !waits {
                Verdict::Done
            } else {
                Verdict::Going
            }
        }
    }
}

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

/// Why a workspace is in ERROR, and what helps.
pub fn broken(w: &v1::Workspace) -> String {
    format!(
        "{} is in ERROR: {}: {}; {}",
        w.name,
        w.error_reason,
        w.error_message,
        advice(w)
    )
}

/// What helps against an error reason.
pub fn advice(w: &v1::Workspace) -> String {
    let name = &w.name;
    match w.error_reason.as_str() {
        "ImagePullFailed" => format!(
            "name an image that exists: windlass ws update {name} --image IMAGE, then windlass recover {name}"
        ),
        "CrashLoop" => format!(
            "fix what its container runs (windlass ws update {name} --image IMAGE), then windlass recover {name}"
        ),
        "DataLost" => format!(
            "choose what to accept: windlass ws archives {name}, then windlass recover {name} --archive KEY, \
             --adopt-volume or --start-empty"
        ),
        "ArchiveCorrupted" => {
            format!("check the store and windlass ws archives {name}, then windlass recover {name}")
        }
        _ => format!("see windlass ws explain {name}; then windlass recover {name}"),
    }
}

/// Waits until `goal`, showing the way there; returns the workspace as it is then.
pub async fn until(
    client: &Client,
    start: &v1::Workspace,
    goal: Goal,
    timeout: Duration,
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
                ERROR_GRACE
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
    use super::*;

    fn workspace(
        phase: v1::Phase,
        operation: v1::Operation,
        desired: v1::DesiredState,
    ) -> v1::Workspace {
        v1::Workspace {
            name: "demo".to_owned(),
            phase: phase.into(),
            operation: operation.into(),
            desired_state: desired.into(),
            ..v1::Workspace::default()
        }
    }

    #[test]
    fn reached_means_in_the_phase_and_idle() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let goal = Goal::Reached(D::Archived);
        assert_eq!(
            judge(&workspace(P::Archived, O::None, D::Archived), goal),
            Verdict::Done
        );
        // The commit point: the volume is still to go.
        assert_eq!(
            judge(&workspace(P::Archived, O::Archiving, D::Archived), goal),
            Verdict::Going
        );
        assert_eq!(
            judge(&workspace(P::Standby, O::None, D::Archived), goal),
            Verdict::Going
        );
        let running = workspace(P::Running, O::Checkpointing, D::Running);
        assert_eq!(judge(&running, Goal::Reached(D::Running)), Verdict::Done);
    }

    #[test]
    fn restored_means_that_no_restore_waits() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let goal = Goal::Restored(D::Running);
        let mut w = workspace(P::Running, O::None, D::Running);
        w.restore_key = "k".to_owned();
        assert_eq!(judge(&w, goal), Verdict::Going);
        assert_eq!(judge(&w, Goal::Reached(D::Running)), Verdict::Done);
        w.restore_key.clear();
        assert_eq!(judge(&w, goal), Verdict::Done);
    }

    #[test]
    fn errors_and_other_wishes_end_it() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let goal = Goal::Reached(D::Running);
        let mut w = workspace(P::Error, O::None, D::Running);
        w.error_reason = "DataLost".to_owned();
        let Verdict::Broken(why) = judge(&w, goal) else {
            panic!("not broken")
        };
        assert!(why.contains("--start-empty"), "{why}");
        let other = judge(&workspace(P::Standby, O::None, D::Standby), goal);
        assert_eq!(
            other,
            Verdict::Superseded("demo is desired to be STANDBY by now".to_owned())
        );
        let deleted = workspace(P::Deleting, O::Deleting, D::Deleted);
        for goal in [goal, Goal::Reached(D::Deleted), Goal::Restored(D::Deleted)] {
            let verdict = judge(&deleted, goal);
            assert!(matches!(verdict, Verdict::Superseded(_)), "{verdict:?}");
        }
    }

    #[test]
    fn deleted_means_no_container_and_no_volume() {
        use v1::{ConditionStatus as C, DesiredState as D, Operation as O, Phase as P};
        let condition = |key: &str, status: C| v1::Condition {
            r#type: key.to_owned(),
            status: status.into(),
            ..v1::Condition::default()
        };
        let mut w = workspace(P::Deleting, O::None, D::Deleted);
        w.conditions = vec![condition("storage.volume_ready", C::True)];
        assert_eq!(judge(&w, Goal::Deleted), Verdict::Going);
        w.conditions = vec![
            condition("storage.volume_ready", C::False),
            condition("storage.archive_ready", C::True),
        ];
        assert_eq!(judge(&w, Goal::Deleted), Verdict::Done);
        w.operation = O::Deleting.into();
        assert_eq!(judge(&w, Goal::Deleted), Verdict::Going);
        let gone = workspace(P::Deleted, O::None, D::Deleted);
        assert_eq!(judge(&gone, Goal::Deleted), Verdict::Done);
        let running = workspace(P::Running, O::None, D::Deleted);
        assert_eq!(judge(&running, Goal::Deleted), Verdict::Going);
    }

    fn message(w: &v1::Workspace, token: &str) -> v1::WatchWorkspacesResponse {
        v1::WatchWorkspacesResponse {
            workspace: Some(w.clone()),
            resume_token: token.to_owned(),
            synced: false,
        }
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn waited(
        scripts: Vec<crate::fake::Script>,
        start: &v1::Workspace,
        timeout: Duration,
    ) -> (Result<v1::Workspace, CliError>, Vec<String>) {
        let fake = crate::fake::Fake {
            scripts: std::sync::Mutex::new(scripts.into()),
            ..Default::default()
        };
        let (client, fake) = fake.serve().await;
        let goal = Goal::Reached(v1::DesiredState::Running);
        let outcome = until(&client, start, goal, timeout).await;
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
        let (outcome, resumed) = waited(scripts, &standby, PATIENCE).await;
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
        let (outcome, _) = waited(new, &standby, PATIENCE).await;
        assert_eq!(outcome.unwrap_err().exit_code(), 1);
        let old = vec![Ok(vec![message(&error, ""), message(&running, "")])];
        let (outcome, _) = waited(old, &error, PATIENCE).await;
        assert_eq!(outcome.unwrap().phase(), P::Running);
        // The last script leaves the stream open: only the moment's end ends this.
        let (outcome, _) = waited(Vec::new(), &error, PATIENCE).await;
        assert_eq!(outcome.unwrap_err().exit_code(), 1);
    }

    #[tokio::test]
    async fn patience_ends_with_its_own_exit_code() {
        use v1::{DesiredState as D, Operation as O, Phase as P};
        let standby = workspace(P::Standby, O::Starting, D::Running);
        let (outcome, _) = waited(Vec::new(), &standby, Duration::from_millis(200)).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("demo is STANDBY"), "{error}");
    }
}
