//! How far a job is, and when it last moved: wc gives up on what stands still, not on what is slow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use windlass_archive::{Progress, Stage};
use windlass_proto::{convert, v1};

use crate::docker::PullProgress;

/// Progress of one job.
#[derive(Debug, Default)]
pub struct JobProgress {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    archive: Option<Arc<Progress>>,
    pull: Option<PullProgress>,
    seen: Option<Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    stage: &'static str,
    moved: u64,
    at: DateTime<Utc>,
}

impl JobProgress {
    /// The progress of an archive or restore, to be handed to it.
    pub fn archive(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.lock().archive = Some(progress.clone());
        progress
    }

    /// An image is being pulled; `None`: no longer.
    pub fn pull(&self, progress: Option<PullProgress>) {
        self.lock().pull = progress;
    }

    /// For the wire; absent while there is nothing to tell.
    pub(super) fn wire(&self) -> Option<v1::Progress> {
        let mut state = self.lock();
        let (stage, done, total, entries) = match (&state.archive, state.pull) {
            (Some(archive), _) => (
                stage_word(archive.stage())?,
                archive.done_bytes(),
                archive.total_bytes(),
                archive.entries(),
            ),
            (None, Some(pull)) => ("pulling", pull.done_bytes, pull.total_bytes, 0),
            (None, None) => return None,
        };
        // Many small files move entries rather than bytes.
        let moved = done.wrapping_add(entries);
        let at = match &state.seen {
            Some(seen) if seen.stage == stage && seen.moved == moved => seen.at,
            _ => Utc::now(),
        };
        state.seen = Some(Seen { stage, moved, at });
        Some(v1::Progress {
            stage: stage.to_owned(),
            done_bytes: done,
            total_bytes: total,
            update_time: Some(convert::timestamp(at)),
        })
    }

    // Every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stage_word(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Waiting => None,
        Stage::Packing => Some("packing"),
        Stage::Verifying => Some("verifying"),
        Stage::Cleaning => Some("cleaning"),
        Stage::Unpacking => Some("unpacking"),
        Stage::Syncing => Some("syncing"),
        Stage::Done => Some("done"),
    }
}
