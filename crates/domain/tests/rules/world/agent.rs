//! An agent that does what the design says of it, or fails as the dice say.

use chrono::{DateTime, TimeDelta, Utc};
use windlass_domain::{
    ErrorReason, OpId, VolumeId,
    conditions::{ArchiveEvidence, ContainerEvidence, ContainerState, FailedJob, RestoreEvidence},
    planner::{Action, Call},
};

use super::{Archive, Job, Volume, World};

impl World {
    pub(super) fn agent(&mut self, working: u8) {
        if self.job.as_ref().is_some_and(|j| j.ends <= self.now)
            && let Some(job) = self.job.take()
        {
            let Call { op_id, attempt, .. } = job.call;
            if let Err(reason) = self.finish(job) {
                self.failed_job = Some(FailedJob {
                    operation: "X".into(),
                    op_id,
                    attempt,
                    reason: reason.to_string(),
                    message: String::new(),
                    at: self.now,
                });
            }
        }
        let now = self.now;
        let (arrived, later) = self.network.drain(..).partition(|(at, _)| *at <= now);
        self.network = later;
        let arrived: Vec<(DateTime<Utc>, Call)> = arrived;
        for (_, call) in arrived {
            self.accept(call, working);
        }
    }

    /// One job at a time; a repeated call joins its job, or is told how its attempt ended.
    fn accept(&mut self, call: Call, working: u8) {
        let known = |f: &FailedJob| f.op_id == call.op_id && f.attempt == call.attempt;
        if self.job.is_some() || self.failed_job.as_ref().is_some_and(known) {
            return;
        }
        let store = matches!(
            call.action,
            Action::Archive { .. }
                | Action::Checkpoint { .. }
                | Action::Restore { .. }
                | Action::CreateEmptyArchive
                | Action::DeleteArchivedVolume { .. }
        );
        let fails = match working {
            200..=219 => Some(ErrorReason::ActionFailed),
            220..=239 if store => Some(ErrorReason::StoreUnavailable),
            220..=229 if matches!(call.action, Action::Start { .. }) => {
                Some(ErrorReason::ImagePullFailed)
            }
            _ => None,
        };
        if let Action::Restore { replaces, .. } = &call.action
            && !self.is_restored(call.op_id)
            && self.make_room(call.op_id, *replaces).is_ok()
        {
            self.volume = Some(Volume {
                id: call.op_id.into(),
                content: None,
            });
        }
        self.job = Some(Job {
            ends: self.now + TimeDelta::seconds(i64::from(working % 8)),
            fails,
            read: self.volume.as_ref().and_then(|v| v.content),
            call,
        });
        self.agent(working);
    }

    fn is_restored(&self, op: OpId) -> bool {
        self.markers.iter().any(|m| m.op_id == op)
    }

    fn finish(&mut self, job: Job) -> Result<(), ErrorReason> {
        const REFUSED: ErrorReason = ErrorReason::ActionFailed;
        if let Some(reason) = job.fails {
            return Err(reason);
        }
        let op = job.call.op_id;
        let volume_id = self.volume.as_ref().map(|v| v.id);
        let content = self.volume.as_ref().and_then(|v| v.content);
        match job.call.action {
            Action::Provision { replaces } => {
                if volume_id != Some(op.into()) {
                    self.make_room(op, replaces)?;
                    self.volume = Some(Volume {
                        id: op.into(),
                        content: Some(0),
                    });
                    self.truth.get_or_insert(0);
                }
            }
            Action::CreateEmptyArchive => {
                self.put_archive(op, 0, false);
                self.truth.get_or_insert(0);
            }
            Action::Start { volume_id: wanted } => {
                if volume_id != Some(wanted) {
                    return Err(REFUSED);
                }
                assert_eq!(
                    content, self.truth,
                    "a container gets the user's home and no other"
                );
                if !self.container.as_ref().is_some_and(|c| c.is_ready()) {
                    self.container = Some(container(op, job.call.attempt, self.now));
                }
            }
            Action::Stop => self.container = None,
            Action::Archive { volume_id: wanted } => {
                if self.archives.iter().all(|a| a.evidence.archive_op_id != op) {
                    if volume_id != Some(wanted) || self.container.is_some() {
                        return Err(REFUSED);
                    }
                    if content != job.read {
                        return Err(ErrorReason::VolumeChanged);
                    }
                    self.put_archive(op, content.ok_or(REFUSED)?, false);
                }
            }
            // What was there when it began, whatever was written since.
            Action::Checkpoint { volume_id: wanted } => {
                if volume_id != Some(wanted) {
                    return Err(REFUSED);
                }
                self.put_archive(op, job.read.ok_or(REFUSED)?, true);
            }
            Action::DeleteArchivedVolume {
                volume_id: wanted,
                archive_key,
                sha256,
            } => {
                let good =
                    |a: &&Archive| a.evidence.key == archive_key && a.evidence.sha256 == sha256;
                let archive = self.archives.iter().find(good).ok_or(REFUSED)?;
                if archive.evidence.crash_consistent || archive.evidence.volume_id != Some(wanted) {
                    return Err(ErrorReason::VolumeChanged);
                }
                let archived = archive.content;
                if volume_id.is_some() {
                    if volume_id != Some(wanted) || self.container.is_some() {
                        return Err(REFUSED);
                    }
                    if content != Some(archived) {
                        return Err(ErrorReason::VolumeChanged);
                    }
                    self.remove_volume();
                }
            }
            Action::Restore { archive_key, .. } => {
                if !self.is_restored(op) {
                    let archive = self.archives.iter().find(|a| a.evidence.key == archive_key);
                    let content = archive.ok_or(REFUSED)?.content;
                    let volume = self.volume.as_mut().filter(|v| v.id == op.into());
                    volume.ok_or(REFUSED)?.content = Some(content);
                    self.markers.push(RestoreEvidence {
                        op_id: op,
                        archive_key,
                    });
                }
            }
            Action::DiscardVolume { volume_id: wanted } => {
                if self.container.is_some() || (wanted.is_some() && wanted != volume_id) {
                    return Err(REFUSED);
                }
                self.remove_volume();
            }
        }
        Ok(())
    }

    fn put_archive(&mut self, op: OpId, content: u64, crash_consistent: bool) {
        if self.archives.iter().all(|a| a.evidence.archive_op_id != op) {
            let evidence = ArchiveEvidence {
                archive_op_id: op,
                key: format!("key/{op}"),
                bytes: 1,
                sha256: format!("sha/{op}"),
                created_at: self.now,
                uncompressed_bytes: 1,
                entries: 1,
                volume_id: self.volume.as_ref().map(|v| v.id),
                crash_consistent,
                changed_files: 0,
            };
            self.archives.push(Archive { evidence, content });
        }
    }

    fn make_room(&mut self, op: OpId, replaces: Option<VolumeId>) -> Result<(), ErrorReason> {
        match self.volume.as_ref().map(|v| v.id) {
            None => Ok(()),
            Some(id) if id == op.into() => Ok(()),
            Some(id) if Some(id) == replaces && self.container.is_none() => {
                self.remove_volume();
                Ok(())
            }
            Some(_) => Err(ErrorReason::ActionFailed),
        }
    }

    /// Whatever a user wrote there is in an archive, also what was given up as lost.
    fn remove_volume(&mut self) {
        let content = self.volume.take().and_then(|v| v.content);
        let is_archived = |c: u64| c == 0 || self.archived().contains(&c);
        assert!(
            content.is_none_or(is_archived) || self.ws.spec.discard_home,
            "the only copy of a home was removed"
        );
    }
}

fn container(op: OpId, attempt: u32, now: DateTime<Utc>) -> ContainerEvidence {
    ContainerEvidence {
        id: format!("{op}/{attempt}"),
        image: "image".into(),
        state: ContainerState::Running,
        health: None,
        started_at: Some(now),
        finished_at: None,
        exit_code: None,
        oom_killed: false,
        op_id: Some(op),
        attempt,
    }
}
