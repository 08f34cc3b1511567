//! Builds workspaces in one line each. Now is second 10,000; observations are of second 9,999 unless a
//! test says otherwise.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use windlass_domain::{
    Control, DesiredState, ErrorReason, Freshness, Home, HostId, OpId, Operation, Phase, Policy,
    RestoreWish, Spec, VolumeId, Workspace, WorkspaceId,
    conditions::{
        ArchiveEvidence, Conditions, ContainerEvidence, ContainerState, FailedJob, JobEvidence,
        RestoreEvidence, VolumeEvidence,
    },
    control::Limits,
    error_reason::Failure,
    explain::{Explanation, explain},
    planner::{Context, Plan, reconcile, record_failure},
    ttl::Idle,
};

/// The id that the next operation gets.
pub const NEW: u128 = 900;
/// The id of an operation in progress.
pub const OP: u128 = 50;
/// The home.
pub const HOME: u128 = 7;
/// Another volume or archive.
pub const OTHER: u128 = 8;

pub fn t(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

pub fn now() -> DateTime<Utc> {
    t(10_000)
}

pub fn op(n: u128) -> OpId {
    OpId(Uuid::from_u128(n))
}

pub fn vol(n: u128) -> VolumeId {
    VolumeId(Uuid::from_u128(n))
}

pub fn key(n: u128) -> String {
    format!("archive/{n}")
}

pub fn archive(n: u128) -> ArchiveEvidence {
    ArchiveEvidence {
        archive_op_id: op(n),
        key: key(n),
        bytes: 1,
        sha256: format!("sha{n}"),
        created_at: t(1),
        uncompressed_bytes: 1,
        entries: 1,
        volume_id: None,
        crash_consistent: false,
        changed_files: 0,
    }
}

/// A checkpoint of the home, taken at this second.
pub fn checkpoint(n: u128, at: i64) -> ArchiveEvidence {
    ArchiveEvidence {
        created_at: t(at),
        volume_id: Some(vol(HOME)),
        crash_consistent: true,
        ..archive(n)
    }
}

/// The volume that is observed, to be changed.
pub fn seen_volume(w: &mut Workspace) -> &mut VolumeEvidence {
    Arc::make_mut(w.conditions.evidence.volume.as_mut().unwrap())
}

/// The container that is observed, to be changed.
pub fn seen_container(w: &mut Workspace) -> &mut ContainerEvidence {
    Arc::make_mut(w.conditions.evidence.container.as_mut().unwrap())
}

/// The newest archive that is observed, to be changed.
pub fn seen_archive(w: &mut Workspace) -> &mut ArchiveEvidence {
    Arc::make_mut(&mut w.conditions.evidence.archives[0])
}

/// A workspace just created, observed once, that should run.
pub fn ws() -> Workspace {
    Workspace {
        id: WorkspaceId(Uuid::from_u128(1)),
        host_id: HostId(Uuid::from_u128(2)),
        spec: Spec {
            name: "demo".into(),
            owner: "ann".into(),
            image: "image".into(),
            limits: Limits::default(),
            desired: DesiredState::Running,
            deleted: false,
            discard_home: false,
            restore: None,
            checkpoint_interval: None,
        },
        control: Control::new(t(0)),
        conditions: Conditions::default(),
        observed_at: Some(t(5_000)),
    }
}

/// Chained changes to a workspace.
pub trait Build {
    fn edit(self, f: impl FnOnce(&mut Workspace)) -> Workspace;
}

impl Build for Workspace {
    fn edit(mut self, f: impl FnOnce(&mut Workspace)) -> Workspace {
        f(&mut self);
        self
    }
}

pub trait Words: Build + Sized {
    fn desired(self, d: DesiredState) -> Workspace {
        self.edit(|w| w.spec.desired = d)
    }
    fn deleted(self, discard_home: bool) -> Workspace {
        self.edit(|w| {
            w.spec.deleted = true;
            w.spec.desired = DesiredState::Deleted;
            w.spec.discard_home = discard_home;
        })
    }
    /// The archive of this number is to be the home again.
    fn wishes_restore(self, n: u128) -> Workspace {
        self.edit(|w| {
            w.spec.restore = Some(RestoreWish {
                request: Uuid::from_u128(n),
                key: key(n),
            });
        })
    }
    fn phase(self, p: Phase) -> Workspace {
        self.edit(|w| w.control.phase = p)
    }
    /// The volume of this id is observed.
    fn sees_volume(self, n: u128) -> Workspace {
        self.edit(|w| {
            let volume = VolumeEvidence {
                name: "v".into(),
                volume_id: Some(vol(n)),
                owned: true,
            };
            w.conditions.evidence.volume = Some(volume.into());
        })
    }
    fn sees_archive(self, n: u128) -> Workspace {
        self.edit(|w| w.conditions.evidence.archives.insert(0, archive(n).into()))
    }
    fn sees_checkpoint(self, n: u128, at: i64) -> Workspace {
        self.edit(|w| {
            w.conditions
                .evidence
                .archives
                .insert(0, checkpoint(n, at).into())
        })
    }
    /// Wants a checkpoint every so many seconds.
    fn checkpointed(self, seconds: i64) -> Workspace {
        self.edit(|w| w.spec.checkpoint_interval = Some(TimeDelta::seconds(seconds)))
    }
    fn sees_container(self, state: ContainerState) -> Workspace {
        self.edit(|w| {
            let container = ContainerEvidence {
                id: "c".into(),
                image: "image".into(),
                state,
                health: None,
                started_at: Some(t(9_000)),
                finished_at: None,
                exit_code: None,
                oom_killed: false,
                op_id: Some(op(1)),
                attempt: 0,
            };
            w.conditions.evidence.container = Some(container.into());
        })
    }
    /// A container that ended after this many seconds, made by this attempt.
    fn sees_exit(self, after: i64, op_id: u128, attempt: u32) -> Workspace {
        self.sees_container(ContainerState::Exited).edit(|w| {
            let c = seen_container(w);
            c.finished_at = Some(t(9_000 + after));
            c.exit_code = Some(137);
            c.oom_killed = true;
            c.op_id = Some(op(op_id));
            c.attempt = attempt;
        })
    }
    fn sees_restore(self, n: u128) -> Workspace {
        self.edit(|w| {
            let restore = RestoreEvidence {
                op_id: op(n),
                archive_key: key(HOME),
            };
            w.conditions.evidence.restore = Some(restore.into());
        })
    }
    fn sees_failed_job(self, n: u128, attempt: u32, reason: &str) -> Workspace {
        self.edit(|w| {
            let failed = FailedJob {
                operation: "X".into(),
                op_id: op(n),
                attempt,
                reason: reason.into(),
                message: "it broke".into(),
                at: t(9_500),
            };
            w.conditions.evidence.failed_job = Some(failed.into());
        })
    }
    fn sees_job(self, n: u128) -> Workspace {
        self.edit(|w| {
            let job = JobEvidence {
                op_id: op(n),
                stage: "upload".into(),
                done_bytes: 1,
                total_bytes: 2,
                updated_at: None,
            };
            w.conditions.evidence.job = Some(job.into());
        })
    }
    fn home_is_volume(self) -> Workspace {
        self.edit(|w| w.control.home = Home::volume(vol(HOME)))
    }
    fn home_is_archive(self) -> Workspace {
        self.edit(|w| {
            w.control.home = Home::archive(None);
            w.control.archive_key = Some(key(HOME));
        })
    }
    /// An archive is the home, and the volume it was taken of is still there.
    fn leftover(self) -> Workspace {
        self.archived().sees_volume(HOME).edit(|w| {
            w.control.home.volume_id = Some(vol(HOME));
            w.control.archive_op_id = Some(op(HOME));
        })
    }
    fn doing(self, operation: Operation) -> Workspace {
        self.edit(|w| {
            w.control.operation = operation;
            w.control.op_id = Some(op(OP));
            w.control.op_started_at = Some(t(9_900));
            w.control.started_image = Some("image".into());
        })
    }
    fn error(self, reason: ErrorReason, count: u32) -> Workspace {
        self.edit(|w| {
            w.control.error_reason = Some(reason);
            w.control.error_message = Some("broken".into());
            w.control.error_count = count;
        })
    }
    fn pending(self) -> Workspace {
        self.phase(Phase::Pending)
    }
    fn archived(self) -> Workspace {
        self.phase(Phase::Archived)
            .home_is_archive()
            .sees_archive(HOME)
    }
    fn standby(self) -> Workspace {
        self.phase(Phase::Standby)
            .home_is_volume()
            .sees_volume(HOME)
    }
    fn running(self) -> Workspace {
        self.standby()
            .phase(Phase::Running)
            .sees_container(ContainerState::Running)
            .edit(|w| w.control.started_image = Some("image".into()))
    }
    /// ERROR (Timeout), with the home on a volume.
    fn in_error(self) -> Workspace {
        self.standby()
            .phase(Phase::Error)
            .error(ErrorReason::Timeout, 1)
    }
}

impl Words for Workspace {}

pub fn fresh() -> Freshness {
    Freshness {
        host: Some(t(9_999)),
        archives: Some(t(9_999)),
    }
}

pub fn plan_with(w: &Workspace, fresh: &Freshness, at: DateTime<Utc>) -> Plan {
    let policy = Policy::default();
    let cx = Context {
        fresh,
        policy: &policy,
        now: at,
        new_op: op(NEW),
    };
    reconcile(w, &cx)
}

pub fn plan(w: &Workspace) -> Plan {
    plan_with(w, &fresh(), now())
}

/// The workspace after `plan` was stored.
pub fn after(w: &Workspace) -> Workspace {
    Workspace {
        control: plan(w).next,
        ..w.clone()
    }
}

/// The same, at a later time, freshly observed.
pub fn after_at(w: &Workspace, at: DateTime<Utc>) -> Workspace {
    let fresh = Freshness {
        host: Some(at),
        archives: Some(at),
    };
    Workspace {
        control: plan_with(w, &fresh, at).next,
        ..w.clone()
    }
}

/// The control columns after the present attempt failed; `None` if the failure is of another one.
pub fn fail_call(w: &Workspace, op_id: u128, attempt: u32, reason: ErrorReason) -> Option<Control> {
    let policy = Policy::default();
    let fresh = fresh();
    let cx = Context {
        fresh: &fresh,
        policy: &policy,
        now: now(),
        new_op: op(NEW),
    };
    let failure = Failure {
        reason,
        message: "it broke".into(),
    };
    record_failure(w, &cx, op(op_id), attempt, failure)
}

/// The workspace after its present attempt failed.
pub fn failed(w: &Workspace, reason: ErrorReason) -> Workspace {
    let op_id = w.control.op_id.unwrap().0.as_u128();
    Workspace {
        control: fail_call(w, op_id, w.control.error_count, reason).unwrap(),
        ..w.clone()
    }
}

/// What is explained of a workspace that was used 10 s ago and has this standby_ttl.
pub fn explained_with(w: &Workspace, standby_ttl: TimeDelta) -> Explanation {
    let idle = Idle {
        phase: w.control.phase,
        desired: w.spec.desired,
        operation: w.control.operation,
        deleted: w.spec.deleted,
        phase_changed_at: w.control.phase_changed_at,
        last_access_at: Some(t(9_990)),
        keep_awake_until: None,
        standby_ttl,
        archive_ttl: TimeDelta::zero(),
    };
    explain(w, &idle, &fresh(), &Policy::default(), now())
}
