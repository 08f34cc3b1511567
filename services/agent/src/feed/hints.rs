//! Hints of what changed in the model, sent after it has changed.

use std::collections::BTreeMap;

use chrono::Utc;
use uuid::Uuid;
use windlass_proto::v1::{Job, JobState};

use super::Cause;
use crate::model::{HostEntry, HostKey, Model};
use crate::watch::Hints;

/// More changes than this are one hint.
const MANY: usize = 64;

/// One hint per change, of the kind of its last event; one for all if they are many.
pub(super) fn send(
    hints: &Hints,
    changed: Vec<HostKey>,
    causes: &BTreeMap<HostKey, Option<Cause>>,
    model: &Model,
) {
    if changed.len() > MANY {
        hints.send("host/changed".to_owned(), None, Utc::now());
        return;
    }
    for key in changed {
        let entry = model.get(&key);
        let (workspace, kind) = match (&key, entry.as_deref()) {
            (HostKey::Jobs(id), Some(HostEntry::Jobs(jobs))) => (Some(*id), job_kind(jobs)),
            (HostKey::Jobs(id), _) => (Some(*id), "job/gone"),
            (HostKey::Container(name), Some(_)) => (workspace_in(name), "container/changed"),
            (HostKey::Container(name), None) => (workspace_in(name), "container/destroy"),
            (HostKey::Volume(name), Some(_)) => (workspace_in(name), "volume/create"),
            (HostKey::Volume(name), None) => (workspace_in(name), "volume/destroy"),
        };
        match causes.get(&key) {
            Some(Some(cause)) => hints.send(cause.kind.clone(), workspace, cause.at),
            Some(None) | None => hints.send(kind.to_owned(), workspace, Utc::now()),
        }
    }
}

/// The newest job comes first.
fn job_kind(jobs: &[Job]) -> &'static str {
    match jobs.first().map(Job::state) {
        Some(JobState::Queued) => "job/queued",
        Some(JobState::Running) => "job/running",
        Some(JobState::Succeeded) => "job/succeeded",
        Some(JobState::Failed) => "job/failed",
        Some(JobState::Unspecified) | None => "job/gone",
    }
}

/// Names end in the workspace's id, or in it and `-home`.
fn workspace_in(name: &str) -> Option<Uuid> {
    let name = name.strip_suffix("-home").unwrap_or(name);
    let id = name.get(name.len().checked_sub(36)?..)?;
    Uuid::try_parse(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_workspace() {
        let id = Uuid::new_v4();
        assert_eq!(workspace_in(&format!("p-{id}")), Some(id));
        assert_eq!(workspace_in(&format!("p-{id}-home")), Some(id));
        assert_eq!(workspace_in("p-"), None);
        assert_eq!(
            workspace_in("p-something-else-that-is-longer-than-36-bytes"),
            None
        );
    }
}
