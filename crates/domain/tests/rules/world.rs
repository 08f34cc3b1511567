//! A small world with faults: one container, one volume, archives and restore markers; an agent that does
//! what the design says of it; an observer with delay; and the planner under test. A home is a number that
//! grows with every write of its user, so that a lost or emptied home is seen at once.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use windlass_domain::{
    DesiredState, ErrorReason, Freshness, OpId, Operation, Phase, Policy, RestoreWish, VolumeId,
    Workspace, attention,
    conditions::{
        ArchiveEvidence, ContainerEvidence, ContainerState, FailedJob, RestoreEvidence,
        VolumeEvidence,
    },
    error_reason::Failure,
    observation::{ArchivesSeen, HostSeen, conditions},
    planner::{Action, Call, Context, reconcile, record_failure},
    recover::{Accept, recover},
};

use crate::support::{op, t, ws};

/// The chances of one step; all zero is a step without faults.
pub type Dice = [u8; 8];

struct Volume {
    id: VolumeId,
    /// `None`: half-restored.
    content: Option<u64>,
}

struct Archive {
    evidence: ArchiveEvidence,
    content: u64,
}

struct Job {
    call: Call,
    ends: DateTime<Utc>,
    fails: Option<ErrorReason>,
    read: Option<u64>,
}

struct Snapshot {
    due: DateTime<Utc>,
    at: DateTime<Utc>,
    host: Option<HostSeen>,
    archives: Option<ArchivesSeen>,
}

pub struct World {
    pub now: DateTime<Utc>,
    pub ws: Workspace,
    fresh: Freshness,
    ops: u128,
    volume: Option<Volume>,
    container: Option<ContainerEvidence>,
    archives: Vec<Archive>,
    markers: Vec<RestoreEvidence>,
    failed_job: Option<FailedJob>,
    job: Option<Job>,
    network: Vec<(DateTime<Utc>, Call)>,
    snapshot: Option<Snapshot>,
    /// A home that the host lost, and whether a home was lost at all.
    away: Option<Volume>,
    lost: bool,
    /// The volume that was the home when somebody accepted another home for it.
    given_up: Option<VolumeId>,
    /// What the user last wrote; `None` before there was any home.
    truth: Option<u64>,
    /// How often the user wrote; no two contents are the same.
    writes: u64,
    /// How many restores the user wished for.
    pub wishes: u128,
    /// How many phases were entered, so that a test knows that something happened.
    pub moves: u32,
    /// The row as wc last planned it, and until when that plan is the last word.
    looked_at: Option<(Workspace, DateTime<Utc>)>,
    /// How many passes wc did not look at the row.
    pub passed_over: u32,
    /// How often something that would have begun waited for a place.
    pub waits: u32,
}

impl World {
    pub fn new() -> Self {
        let mut ws = ws();
        ws.observed_at = None;
        Self {
            now: t(0),
            ws,
            fresh: Freshness::default(),
            ops: 1_000,
            volume: None,
            container: None,
            archives: vec![],
            markers: vec![],
            failed_job: None,
            job: None,
            network: vec![],
            snapshot: None,
            away: None,
            lost: false,
            given_up: None,
            truth: None,
            writes: 0,
            wishes: 0,
            moves: 0,
            looked_at: None,
            passed_over: 0,
            waits: 0,
        }
    }

    pub fn desire(&mut self, desired: DesiredState) {
        if !self.ws.spec.deleted {
            self.ws.spec.desired = desired;
        }
    }

    pub fn delete(&mut self, discard_home: bool) {
        if !self.ws.spec.deleted {
            self.ws.spec.deleted = true;
            self.ws.spec.discard_home = discard_home;
            self.ws.spec.desired = DesiredState::Deleted;
        }
    }

    /// Some archive that is there is to be the home again.
    pub fn wish_restore(&mut self, which: usize) {
        if let Some(n) = which.checked_rem(self.archives.len()) {
            self.wishes += 1;
            self.ws.spec.restore = Some(RestoreWish {
                request: Uuid::from_u128(self.wishes),
                key: self.archives[n].evidence.key.clone(),
            });
        }
    }

    /// The host is back without the disk that the home was on; what was on its way to it is lost as well. Not
    /// while an archive of it is being made, which might be taken for all there was.
    pub fn lose_home(&mut self) {
        let home = self.ws.control.home.home_volume();
        let archiving = self.ws.control.operation == Operation::Archiving;
        if let Some(volume) = self.volume.take_if(|v| !archiving && Some(v.id) == home) {
            self.away = Some(volume);
            self.lost = true;
            self.container = None;
            self.job = None;
            self.network.clear();
        }
    }

    /// The lost home is there again, if no other volume has its place, or had it since.
    pub fn home_comes_back(&mut self) {
        let named = self.ws.control.home.volume_id;
        if self.volume.is_none() {
            self.volume = self.away.take_if(|v| Some(v.id) == named);
            self.network.clear();
        }
    }

    /// Somebody finds the home lost and says what is the home: an archive, if there is one, or the volume that
    /// is there, or an empty one.
    pub fn recover(&mut self, which: usize) {
        let evidence = &self.ws.conditions.evidence;
        let archive = which
            .checked_rem(evidence.archives.len())
            .map(|n| evidence.archives[n].key.clone());
        let volume = self.volume.as_ref().filter(|_| evidence.volume.is_some());
        let of_key = |key: &String| self.archives.iter().find(|a| a.evidence.key == *key);
        let content = archive.as_ref().and_then(of_key).map(|a| a.content);
        let (accept, content) = match (archive, volume) {
            (Some(key), _) => (Accept::Archive(key), content),
            (None, Some(volume)) => (Accept::AdoptVolume, volume.content),
            (None, None) => (Accept::StartEmpty, None),
        };
        if let Ok(control) = recover(&self.ws, Some(accept)) {
            self.given_up = self.ws.control.home.volume_id;
            self.truth = content;
            self.ws.control = control;
        }
    }

    /// A home that was given up as lost is the home again at this moment.
    fn home_again(&mut self) {
        let home = self.ws.control.home.home_volume();
        if self.given_up.is_some() && self.given_up == home {
            let there = self.volume.as_ref().filter(|v| Some(v.id) == home);
            self.truth = there.expect("it is there again").content;
            self.given_up = None;
        }
    }

    /// A wish is fulfilled at this moment: what was the home is an archive, and another one is the home.
    fn restore_applied(&mut self) {
        let is_archived = |truth: u64| truth == 0 || self.archived().contains(&truth);
        assert!(
            self.truth.is_none_or(is_archived),
            "what was the home is archived first"
        );
        let key = self.ws.control.archive_key.as_ref();
        let wished = self.archives.iter().find(|a| Some(&a.evidence.key) == key);
        self.truth = Some(wished.expect("an archive that is there").content);
    }

    /// How many checkpoints there are.
    pub fn checkpoints(&self) -> usize {
        let archives = self.archives.iter();
        archives.filter(|a| a.evidence.crash_consistent).count()
    }

    /// What the archives hold, oldest first.
    pub fn archived(&self) -> Vec<u64> {
        self.archives.iter().map(|a| a.content).collect()
    }

    /// What the user has now.
    pub fn content(&self) -> Option<u64> {
        self.truth
    }

    pub fn is_empty(&self) -> bool {
        self.container.is_none() && self.volume.is_none()
    }

    /// Whether what the user last wrote, if anything, is still somewhere.
    pub fn home_is_kept(&self) -> bool {
        let Some(truth) = self.truth.filter(|t| *t > 0) else {
            return true;
        };
        let mut volumes = self.volume.iter().chain(&self.away);
        volumes.any(|v| v.content == Some(truth))
            || self.archives.iter().any(|a| a.content == truth)
    }

    /// One step of the world.
    pub fn step(&mut self, dice: Dice) {
        let [time, event, seeing, crash, sending, working, ..] = dice;
        self.now += match time {
            0..=199 => TimeDelta::seconds(1 + i64::from(time) / 20),
            200..=249 => TimeDelta::seconds(70),
            250.. => TimeDelta::seconds(700),
        };
        self.user_and_fate(event, dice[6]);
        self.agent(working);
        self.observer(seeing);
        self.wc(crash, sending, dice[7]);
    }

    fn user_and_fate(&mut self, event: u8, which: u8) {
        match event {
            100..=139 => self.desire(match which % 3 {
                0 => DesiredState::Archived,
                1 => DesiredState::Standby,
                _ => DesiredState::Running,
            }),
            140..=179 => self.write(),
            180..=199 => {
                let now = self.now;
                if let Some(c) = self.container.as_mut().filter(|c| c.is_ready()) {
                    c.state = ContainerState::Exited;
                    c.finished_at = Some(now);
                    c.exit_code = Some(1);
                }
            }
            200..=209 => self.container = None, // removed behind our back
            210..=229 => self.job = None,       // the agent dies
            90..=99 => {
                let interval = TimeDelta::seconds(i64::from(which % 4) * 60);
                self.ws.spec.checkpoint_interval = Some(interval);
            }
            230..=234 => self.delete(which < 128),
            235..=239 => self.ws.spec.image = format!("image{which}"),
            240..=254 => self.wish_restore(which.into()),
            _ => {}
        }
    }

    fn write(&mut self) {
        if self.container.as_ref().is_some_and(|c| c.is_ready())
            && let Some(volume) = self.volume.as_mut()
        {
            self.writes += 1;
            self.truth = Some(self.writes);
            volume.content = Some(self.writes);
        }
    }

    // ---- the agent -----------------------------------------------------------------------------

    fn agent(&mut self, working: u8) {
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

    // ---- the observer --------------------------------------------------------------------------

    fn observer(&mut self, seeing: u8) {
        let now = self.now;
        if let Some(seen) = self.snapshot.take_if(|s| s.due <= now) {
            if seen.host.is_some() {
                self.fresh.host = Some(seen.at);
            }
            if seen.archives.is_some() {
                self.fresh.archives = Some(seen.at);
            }
            let key = self.ws.control.archive_key.as_deref();
            let previous = &self.ws.conditions;
            let wished = self.ws.open_restore().map(|wish| wish.key.as_str());
            let next = conditions(previous, seen.host, seen.archives, key, wished, seen.at);
            if next != *previous || self.ws.observed_at.is_none() {
                self.ws.conditions = next;
                self.ws.observed_at = Some(seen.at);
            }
        }
        if self.snapshot.is_none() && seeing < 220 {
            let host = HostSeen {
                container: self.container.clone().map(Arc::new),
                volume: self.volume.as_ref().map(|v| {
                    Arc::new(VolumeEvidence {
                        name: "v".into(),
                        volume_id: Some(v.id),
                        owned: true,
                    })
                }),
                job: None,
                failed_job: self.failed_job.clone().map(Box::new),
            };
            let archives = ArchivesSeen {
                archives: self
                    .archives
                    .iter()
                    .map(|a| a.evidence.clone().into())
                    .collect(),
                restores: self.markers.clone(),
            };
            self.snapshot = Some(Snapshot {
                due: now + TimeDelta::seconds(i64::from(seeing) / 20),
                at: now,
                host: (seeing % 8 != 7).then_some(host),
                archives: (seeing % 4 != 3).then_some(archives),
            });
            if seeing == 0 {
                self.observer(255); // at once
            }
        }
    }

    // ---- wc ------------------------------------------------------------------------------------

    /// Whether wc looks at the row in this pass: it changed, its columns say so, or the last plan did. A row
    /// that is gone for good is not looked at by anybody; here it is, which must change nothing but its phase.
    fn has_attention(&self) -> bool {
        let known = self.looked_at.as_ref();
        let unchanged = known.is_some_and(|(row, until)| self.now < *until && *row == self.ws);
        let gone = self.ws.control.phase == Phase::Deleted;
        !unchanged || gone || attention::by_columns(&self.ws)
    }

    fn wc(&mut self, crash: u8, sending: u8, place: u8) {
        if crash >= 240 {
            self.looked_at = None; // the next leader knows nothing
            return; // dead, or it died before the commit
        }
        self.ops += 1;
        let policy = Policy::default();
        let fresh = self.fresh;
        let cx = Context {
            fresh: &fresh,
            policy: &policy,
            now: self.now,
            new_op: op(self.ops),
        };
        let mut plan = reconcile(&self.ws, &cx);
        if !self.has_attention() {
            self.passed_over += 1;
            assert_eq!(plan.next, self.ws.control, "overlooked");
            assert_eq!(plan.call, None, "overlooked");
            return;
        }
        let until = match plan.settled {
            true => plan.again_at.unwrap_or(DateTime::<Utc>::MAX_UTC),
            false => DateTime::<Utc>::MIN_UTC,
        };
        self.looked_at = Some((self.ws.clone(), until));
        if place >= 160 && plan.held_back.is_some() {
            plan.wait();
            self.waits += 1;
            assert_eq!(plan.call, None);
        }
        let before = self.ws.control.phase;
        let checkpointing = self.ws.control.operation == Operation::Checkpointing;
        assert!(
            self.lost || !(checkpointing && plan.next.phase == Phase::Error),
            "a checkpoint ends in no ERROR: {:?}",
            plan.next.error_message
        );
        self.check_move(before, plan.next.phase);
        let applied = plan.next.restore_applied != self.ws.control.restore_applied;
        self.ws.control = plan.next;
        if applied {
            self.restore_applied();
        }
        let c = &self.ws.control;
        assert!(c.phase != Phase::Error || c.operation == Operation::None);
        let found_lost = matches!(
            c.error_reason,
            Some(ErrorReason::DataLost | ErrorReason::ContainerWithoutVolume)
        );
        assert!(
            self.lost || !found_lost,
            "nobody lost a home here: {:?}",
            c.error_message
        );
        self.home_again();
        if crash >= 220 {
            self.looked_at = None;
            return; // died after the commit
        }
        let Some(call) = plan.call else { return };
        assert_eq!(
            Some(call.op_id),
            self.ws.control.op_id,
            "stored before the call"
        );
        let (arrives, told) = match sending {
            0..=149 => (Some(0), None),
            150..=179 => (Some(sending - 150), None),
            180..=199 => (None, None),
            200..=214 => (None, Some(ErrorReason::Unreachable)),
            215..=234 => (Some(sending - 215), Some(ErrorReason::Unreachable)),
            235.. => (None, Some(ErrorReason::ActionFailed)),
        };
        let (op_id, attempt) = (call.op_id, call.attempt);
        if let Some(after) = arrives {
            let at = self.now + TimeDelta::seconds(i64::from(after));
            self.network.push((at, call));
            self.agent(0);
        }
        if let Some(reason) = told {
            let failure = Failure {
                reason,
                message: String::new(),
            };
            let next = record_failure(&self.ws, &cx, op_id, attempt, failure);
            let next = next.expect("the attempt was stored just now");
            assert_eq!(next.operation == Operation::None, next.op_id.is_none());
            let checkpointing = self.ws.control.operation == Operation::Checkpointing;
            assert!(!checkpointing || next.phase != Phase::Error);
            self.ws.control = next;
            self.home_again();
        }
    }

    fn check_move(&mut self, from: Phase, to: Phase) {
        use Phase::{Archived, Deleted, Deleting, Error, Pending, Running, Standby};
        if from == to {
            return;
        }
        self.moves += 1;
        let allowed = match (from, to) {
            (Deleting, Deleted) | (Deleted, Deleting) => true, // back for a straggler
            (Deleting | Deleted, _) | (_, Deleted) => false,
            (_, Error | Deleting) | (Error, _) => true,
            (Pending, Standby | Archived) => true,
            (Archived, Standby) | (Standby, Archived) => true,
            (Standby, Running) | (Running, Standby) => true,
            _ => false,
        };
        assert!(allowed, "{from} to {to} is more than one step");
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
