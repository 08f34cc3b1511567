//! Supervised tasks: a loop that ends unasked takes the process down.
//!
//! The predecessor's loops died one by one while /health said ok. Here every long-lived task belongs to
//! a [`Tasks`]; one that returns, fails or panics before shutdown cancels the rest and becomes the
//! process's error, and the process is started again from the stored state.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Why the tasks of a process ended.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A task returned although nobody asked it to.
    #[error("task {0} ended unexpectedly")]
    Ended(String),
    /// A task returned an error.
    #[error("task {name} failed: {why:#}")]
    Failed {
        /// The task's name.
        name: String,
        /// Its error.
        why: anyhow::Error,
    },
    /// A task panicked; the panic itself is in the log.
    #[error("task {0} panicked")]
    Panicked(String),
    /// A task was still running when the bound for stopping was over, and was aborted.
    #[error("task {0} did not stop in time and was aborted")]
    Stuck(String),
}

/// The long-lived tasks of one process (or of one service in a test).
#[derive(Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    names: HashMap<Id, String>,
    set: JoinSet<anyhow::Result<()>>,
}

impl Tasks {
    /// Tasks that are expected to run until `shutdown`.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            names: HashMap::new(),
            set: JoinSet::new(),
        }
    }

    /// The token a task has to watch.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts a task. It must return soon after shutdown, and not before.
    pub fn spawn<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name.into());
    }

    /// Waits until all have ended: without end before shutdown, at most `bound` after it. Dropping this
    /// aborts them.
    ///
    /// # Errors
    /// The first thing that went wrong; shutdown is cancelled then.
    pub async fn supervise(mut self, bound: Duration) -> Result<(), TaskError> {
        let mut first = None;
        let shutdown = self.shutdown.clone();
        let supervised = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let error = Self::judge(&mut self.names, ended, shutdown.is_cancelled());
                if let Some(error) = error {
                    tracing::error!("{error}");
                    first.get_or_insert(error);
                    shutdown.cancel();
                }
            }
            // No task is a service that only serves.
            shutdown.cancelled().await;
        };
        let over = async {
            shutdown.cancelled().await;
            tokio::time::sleep(bound).await;
        };
        tokio::select! {
            () = supervised => {}
            () = over => {
                let stuck = self.names.values().cloned().collect::<Vec<_>>().join(", ");
                tracing::warn!(tasks = %stuck, "tasks did not stop in time: aborted");
                self.set.shutdown().await;
                first.get_or_insert(TaskError::Stuck(stuck));
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn judge(
        names: &mut HashMap<Id, String>,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
        stopping: bool,
    ) -> Option<TaskError> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let name = names.remove(&id).unwrap_or_else(|| id.to_string());
        match ended {
            Ok((_, Ok(()))) if stopping => None,
            Ok((_, Ok(()))) => Some(TaskError::Ended(name)),
            Ok((_, Err(why))) => Some(TaskError::Failed { name, why }),
            Err(error) if error.is_cancelled() => None,
            Err(_) => Some(TaskError::Panicked(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_millis(200);

    fn waiting(tasks: &mut Tasks) {
        let shutdown = tasks.shutdown();
        tasks.spawn("waiting", async move {
            shutdown.cancelled().await;
            Ok(())
        });
    }

    #[tokio::test]
    async fn tasks_that_stop_when_asked_are_fine() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        waiting(&mut tasks);
        shutdown.cancel();
        tasks.supervise(BOUND).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_ends_fails_or_panics_stops_all() {
        async fn ended(tasks: Tasks) -> String {
            let shutdown = tasks.shutdown();
            let error = tasks.supervise(BOUND).await.unwrap_err().to_string();
            assert!(shutdown.is_cancelled());
            error
        }
        let mut tasks = Tasks::new(CancellationToken::new());
        waiting(&mut tasks);
        tasks.spawn("loop", async { Ok(()) });
        assert_eq!(ended(tasks).await, "task loop ended unexpectedly");

        let mut tasks = Tasks::new(CancellationToken::new());
        waiting(&mut tasks);
        tasks.spawn("loop", async { anyhow::bail!("no more") });
        assert_eq!(ended(tasks).await, "task loop failed: no more");

        let mut tasks = Tasks::new(CancellationToken::new());
        waiting(&mut tasks);
        tasks.spawn("loop", async { panic!("bug") });
        assert_eq!(ended(tasks).await, "task loop panicked");
    }

    #[tokio::test]
    async fn one_that_does_not_stop_is_aborted() {
        let shutdown = CancellationToken::new();
        let mut tasks = Tasks::new(shutdown.clone());
        tasks.spawn("deaf", std::future::pending());
        shutdown.cancel();
        assert!(
            matches!(tasks.supervise(BOUND).await, Err(TaskError::Stuck(name)) if name == "deaf")
        );
    }
}
