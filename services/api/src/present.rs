//! Rows to what clients see.

use windlass_db::{AuditEntry, HostRecord, WorkspaceRecord};
use windlass_domain::{Operation, conditions::JobEvidence};
use windlass_proto::{
    convert::{self, duration, timestamp},
    v1,
};

pub fn workspace(record: &WorkspaceRecord) -> v1::Workspace {
    let ws = &record.workspace;
    let (spec, control) = (&ws.spec, &ws.control);
    v1::Workspace {
        id: ws.id.to_string(),
        name: spec.name.clone(),
        description: record.description.clone(),
        owner: spec.owner.clone(),
        image: spec.image.clone(),
        host_id: ws.host_id.to_string(),
        desired_state: v1::DesiredState::from(spec.desired).into(),
        phase: v1::Phase::from(control.phase).into(),
        operation: v1::Operation::from(control.operation).into(),
        progress: progress(record),
        conditions: convert::conditions(&ws.conditions),
        error_reason: control
            .error_reason
            .map_or_else(String::new, |reason| reason.as_str().to_owned()),
        error_message: control.error_message.clone().unwrap_or_default(),
        error_count: control.error_count,
        archive_key: control.archive_key.clone().unwrap_or_default(),
        home: Some(home(record)),
        standby_ttl: record.standby_ttl.map(duration),
        archive_ttl: record.archive_ttl.map(duration),
        limits: Some(convert::limits(spec.limits)),
        create_time: Some(timestamp(record.created_at)),
        update_time: Some(timestamp(record.updated_at)),
        last_access_time: record.last_access_at.map(timestamp),
        observe_time: record.fresh.host.map(timestamp),
        etag: etag(record.generation),
        delete_time: record.deleted_at.map(timestamp),
        phase_change_time: Some(timestamp(control.phase_changed_at)),
        keep_awake_until: record.keep_awake_until.map(timestamp),
        retry_time: control.retry_at.map(timestamp),
        restore_key: ws
            .open_restore()
            .map_or_else(String::new, |wish| wish.key.clone()),
        checkpoint_interval: spec.checkpoint_interval.map(duration),
    }
}

/// The etag of a generation.
pub fn etag(generation: i64) -> String {
    format!("{generation:x}")
}

/// Of the operation in progress only: the job of an earlier one says nothing about it.
fn progress(record: &WorkspaceRecord) -> Option<v1::Progress> {
    let ws = &record.workspace;
    let job: &JobEvidence = ws.conditions.evidence.job.as_deref()?;
    let current = ws.control.operation != Operation::None && ws.control.op_id == Some(job.op_id);
    current.then(|| v1::Progress {
        stage: job.stage.clone(),
        done_bytes: job.done_bytes,
        total_bytes: job.total_bytes,
        update_time: job.updated_at.map(timestamp),
    })
}

fn home(record: &WorkspaceRecord) -> v1::Home {
    let home = &record.workspace.control.home;
    let last = record.workspace.conditions.last_safe_copy();
    v1::Home {
        location: v1::HomeLocation::from(home.location).into(),
        volume_id: home
            .home_volume()
            .map_or_else(String::new, |id| id.to_string()),
        last_archive_time: last.map(|a| timestamp(a.created_at)),
        restored_from: home.restored_from.clone().unwrap_or_default(),
        last_archive_crash_consistent: last.is_some_and(|a| a.crash_consistent),
    }
}

/// Complete archives, newest first.
pub fn archives(record: &WorkspaceRecord) -> Vec<v1::ArchiveInfo> {
    let ws = &record.workspace;
    let mut archives: Vec<_> = ws.conditions.evidence.archives.iter().collect();
    archives.sort_by(|a, b| (b.created_at, &b.key).cmp(&(a.created_at, &a.key)));
    archives
        .into_iter()
        .map(|archive| convert::archive_info(ws.id, archive))
        .collect()
}

pub fn audit_entry(entry: AuditEntry) -> v1::AuditEntry {
    v1::AuditEntry {
        time: Some(timestamp(entry.at)),
        actor: entry.actor,
        action: entry.action,
        detail: entry.detail,
    }
}

pub fn host(host: HostRecord, workspaces: i64) -> v1::Host {
    v1::Host {
        id: host.id.to_string(),
        name: host.name,
        address: host.address,
        cordoned: host.cordoned,
        create_time: Some(timestamp(host.created_at)),
        observe_time: host.last_observed_at.map(timestamp),
        observe_error: host.observe_error,
        workspace_count: u32::try_from(workspaces).unwrap_or(0),
    }
}
