//! The one task that writes the model: it reads what is marked as dirty, and everything now and then.
//!
//! Reads are serial, and each takes the marks before it begins: what happens while it runs is read by the
//! next one. A full list is made at the start, every resync interval, after every gap in the events, when
//! much is dirty at once, and when somebody asks for proof. Jobs are taken before the engine is read and
//! told with what was read: a job that is told as ended is never ahead of what it did. Watchers are told
//! after the model knows.

mod dirty;
mod events;
mod hints;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use windlass_domain::{WorkspaceId, names};
use windlass_proto::v1;
use windlass_service::Backoff;

use crate::docker::{DockerError, Engine};
use crate::error::Failure;
use crate::jobs::Jobs;
use crate::model::{Found, HostEntry, HostKey, Model};
use crate::watch::Hints;

pub use dirty::{Cause, Dirty, Taken, Why};
pub use events::follow;
pub use read::{foreign_containers, volume_wire};

/// More dirty names than this are read by a full list.
const MANY: usize = 64;
/// How long a list of which a half is asked for waits for other asks: who asks for both gets one list.
const TOGETHER: Duration = Duration::from_millis(1);
/// How often the progress of running jobs is taken.
const PROGRESS: Duration = Duration::from_secs(1);

/// What feeds the model.
#[derive(Debug)]
pub struct Feed {
    /// The engine.
    pub engine: Engine,
    /// The jobs.
    pub jobs: Jobs,
    /// What is dirty.
    pub dirty: Dirty,
    /// What is fed.
    pub model: Model,
    /// Who is told.
    pub hints: Hints,
    /// How often everything is listed.
    pub resync: Duration,
}

/// When something is due by the clock.
#[derive(Debug)]
struct Due {
    /// The next full list, and why.
    list: Instant,
    why: Why,
    /// Lists that failed in a row.
    failures: u32,
    /// Asks for a list that were answered.
    answered: u64,
    /// The next look at the progress of jobs.
    progress: Instant,
}

impl Feed {
    /// Feeds until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        self.feed(&shutdown).await;
        self.model.close();
    }

    async fn feed(&self, shutdown: &CancellationToken) {
        let mut due = Due {
            list: Instant::now() + self.resync,
            why: Why::Resync,
            failures: 0,
            answered: 0,
            progress: Instant::now(),
        };
        loop {
            let working = self.jobs.active() > 0;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.dirty.marked() => {}
                () = sleep_until(due.list) => {}
                () = sleep_until(due.progress), if working => {
                    due.progress = Instant::now() + PROGRESS;
                    for workspace in self.jobs.active_workspaces() {
                        self.dirty.job(workspace);
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.read(&mut due) => {}
            }
        }
    }

    async fn read(&self, due: &mut Due) {
        let mut taken = self.dirty.take();
        // Before the engine is read: see the module.
        let jobs = self.jobs_of(&taken.jobs);
        for (&workspace, jobs) in &jobs {
            if jobs.iter().all(|job| job.end_time.is_some()) {
                // What it did may not have been told by an event.
                let (prefix, id) = (self.engine.prefix(), WorkspaceId(workspace));
                let container = HostKey::Container(names::container(prefix, id));
                let volume = HostKey::Volume(names::home_volume(prefix, id));
                taken.names.entry(container).or_default();
                taken.names.entry(volume).or_default();
            }
        }
        let changed = match self.wants_list(due, &taken) {
            Some(why) => self.list(why, &taken, due).await,
            None => match self.look(&taken).await {
                Ok(mut found) => {
                    found.extend(jobs.into_iter().map(|(workspace, jobs)| {
                        let entry = (!jobs.is_empty()).then(|| HostEntry::Jobs(jobs).into());
                        (HostKey::Jobs(workspace), entry)
                    }));
                    self.model.change(|model| model.looked_at(found))
                }
                Err(error) => {
                    tracing::info!("single names could not be read, everything is listed: {error}");
                    self.list(Why::Retry, &taken, due).await
                }
            },
        };
        hints::send(&self.hints, changed, &taken.names, &self.model);
    }

    fn jobs_of(&self, workspaces: &BTreeSet<Uuid>) -> BTreeMap<Uuid, Vec<v1::Job>> {
        let jobs = |&workspace| (workspace, self.jobs.list(Some(workspace)));
        workspaces.iter().map(jobs).collect()
    }

    async fn look(&self, taken: &Taken) -> Result<Found, DockerError> {
        if self.model.is_failing() {
            // The next full list reads them.
            self.dirty.put_back(taken.names.clone());
            return Ok(Found::new());
        }
        read::names(&self.engine, &taken.names).await
    }

    /// Why everything is to be listed now, if it is.
    fn wants_list(&self, due: &Due, taken: &Taken) -> Option<Why> {
        if taken.asks > due.answered {
            Some(Why::Prove)
        } else if Instant::now() >= due.list {
            Some(due.why)
        } else if taken.list.is_some() {
            taken.list
        } else if taken.names.len() > MANY && !self.model.is_failing() {
            Some(Why::Many)
        } else {
            None
        }
    }

    /// Lists everything; the model has it then, or has failed.
    async fn list(&self, why: Why, taken: &Taken, due: &mut Due) -> Vec<HostKey> {
        metrics::counter!("windlass_agent_full_lists_total", "reason" => why.word()).increment(1);
        if why == Why::Prove && taken.halves {
            sleep(TOGETHER).await;
        }
        // At the last moment: whoever asks later is not answered by this list.
        let asks = self.dirty.asks();
        let began = std::time::Instant::now();
        let jobs = by_workspace(self.jobs.list(None));
        let listed = self.everything(taken).await;
        due.answered = asks;
        match listed {
            Ok(found) => {
                let changed = self.model.change(|model| {
                    let mut changed = model.listed(found);
                    // Those that were forgotten for want of room.
                    changed.extend(model.all_jobs(jobs));
                    changed
                });
                due.why = Why::Resync;
                due.list = Instant::now() + self.resync;
                let first = self.model.proof().is_none();
                self.model.proven(began, asks);
                if std::mem::take(&mut due.failures) > 0 || first {
                    tracing::info!("the engine can be listed");
                    let kind = "engine/reconnect".to_owned();
                    self.hints.send(kind, None, Utc::now());
                }
                metrics::histogram!("windlass_agent_full_list_seconds")
                    .record(began.elapsed().as_secs_f64());
                changed
            }
            Err(error) => {
                due.failures += 1;
                if due.failures == 1 {
                    tracing::warn!("the engine cannot be listed: {error}");
                }
                due.why = Why::Retry;
                due.list = Instant::now() + Backoff::RECONNECT.after(due.failures);
                self.dirty.put_back(taken.names.clone());
                self.model.failed(Failure::from(error), asks);
                Vec::new()
            }
        }
    }

    async fn everything(&self, taken: &Taken) -> Result<Found, DockerError> {
        let dirty: BTreeSet<String> = taken
            .names
            .keys()
            .filter_map(|key| match key {
                HostKey::Container(name) => Some(name.clone()),
                HostKey::Volume(_) | HostKey::Jobs(_) => None,
            })
            .collect();
        let known = |name: &str| self.model.get(&HostKey::Container(name.to_owned()));
        read::everything(&self.engine, &known, &dirty).await
    }
}

fn by_workspace(jobs: Vec<v1::Job>) -> BTreeMap<Uuid, Vec<v1::Job>> {
    let mut all: BTreeMap<Uuid, Vec<v1::Job>> = BTreeMap::new();
    for job in jobs {
        if let Ok(workspace) = Uuid::try_parse(&job.workspace_id) {
            all.entry(workspace).or_default().push(job);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::Parser;

    use super::*;
    use crate::config::JobArgs;
    use crate::epochs::Epochs;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        jobs: JobArgs,
    }

    #[tokio::test]
    async fn asks_that_come_before_a_list_begins_are_answered_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let epochs = Arc::new(Epochs::open(folder.path()).unwrap());
        let dirty = Dirty::default();
        let feed = Feed {
            // Lists of it fail at once.
            engine: Engine::new(Some("unix:///does/not/exist.sock"), "p-"),
            jobs: Jobs::new(&Args::parse_from(["x"]).jobs, epochs, dirty.clone()),
            model: Model::new(dirty.clone()),
            dirty,
            hints: Hints::default(),
            resync: Duration::from_secs(3600),
        };
        let mut due = Due {
            list: Instant::now() + feed.resync,
            why: Why::Resync,
            failures: 0,
            answered: 0,
            progress: Instant::now(),
        };
        // Polled in this order: the second ask comes once the feed has taken the first.
        let both = async {
            tokio::join!(
                feed.model.prove_half(),
                feed.read(&mut due),
                feed.model.prove()
            )
        };
        let (first, (), second) = tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .expect("the second ask waits for a list of its own");
        assert!(first.is_err() && second.is_err());
        assert_eq!((due.answered, due.failures), (2, 1));
    }
}
