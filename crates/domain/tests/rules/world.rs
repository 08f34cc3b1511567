//! A small world with faults: one container, one volume, archives and restore markers; an agent that does
//! what the design says of it; an observer with delay; and the planner under test. A home is a number that
//! grows with every write of its user, so that a lost or emptied home is seen at once.
//!
//! Here is what there is, and what users and fate do; who else acts has a file.

mod agent;
mod observer;
mod wc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use windlass_domain::{
    DesiredState, ErrorReason, Freshness, Operation, RestoreWish, VolumeId, Workspace,
    conditions::{ArchiveEvidence, ContainerEvidence, ContainerState, FailedJob, RestoreEvidence},
    observation::{ArchivesSeen, HostSeen},
    planner::Call,
    recover::{Accept, recover},
};

use crate::support::{t, ws};

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
}
