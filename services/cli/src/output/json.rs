//! Messages as JSON: fields and enum words as in the protocol, times in RFC 3339, durations as `600s`,
//! numbers as numbers. What is absent is null.

use chrono::SecondsFormat;
use serde_json::{Value, json};
use windlass_proto::v1;

use crate::values;

fn time(at: Option<&prost_types::Timestamp>) -> Value {
    values::time(at).map_or(Value::Null, |at| {
        at.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()
    })
}

fn duration(length: Option<&prost_types::Duration>) -> Value {
    length.map_or(Value::Null, |length| length.to_string().into())
}

/// A workspace.
pub fn workspace(w: &v1::Workspace) -> Value {
    json!({
        "id": w.id,
        "name": w.name,
        "description": w.description,
        "owner": w.owner,
        "image": w.image,
        "host_id": w.host_id,
        "desired_state": w.desired_state().as_str_name(),
        "phase": w.phase().as_str_name(),
        "operation": w.operation().as_str_name(),
        "progress": w.progress.as_ref().map(progress),
        "conditions": w.conditions.iter().map(condition).collect::<Vec<_>>(),
        "error_reason": w.error_reason,
        "error_message": w.error_message,
        "error_count": w.error_count,
        "archive_key": w.archive_key,
        "home": w.home.as_ref().map(home),
        "standby_ttl": duration(w.standby_ttl.as_ref()),
        "archive_ttl": duration(w.archive_ttl.as_ref()),
        "limits": w.limits.as_ref().map(limits),
        "create_time": time(w.create_time.as_ref()),
        "update_time": time(w.update_time.as_ref()),
        "last_access_time": time(w.last_access_time.as_ref()),
        "observe_time": time(w.observe_time.as_ref()),
        "etag": w.etag,
        "delete_time": time(w.delete_time.as_ref()),
        "phase_change_time": time(w.phase_change_time.as_ref()),
        "keep_awake_until": time(w.keep_awake_until.as_ref()),
        "retry_time": time(w.retry_time.as_ref()),
        "restore_key": w.restore_key,
        "checkpoint_interval": duration(w.checkpoint_interval.as_ref()),
    })
}

fn progress(p: &v1::Progress) -> Value {
    json!({
        "stage": p.stage,
        "done_bytes": p.done_bytes,
        "total_bytes": p.total_bytes,
        "update_time": time(p.update_time.as_ref()),
    })
}

fn condition(c: &v1::Condition) -> Value {
    json!({
        "type": c.r#type,
        "status": c.status().as_str_name(),
        "reason": c.reason,
        "message": c.message,
        "last_transition_time": time(c.last_transition_time.as_ref()),
    })
}

fn home(h: &v1::Home) -> Value {
    json!({
        "location": h.location().as_str_name(),
        "volume_id": h.volume_id,
        "last_archive_time": time(h.last_archive_time.as_ref()),
        "restored_from": h.restored_from,
        "last_archive_crash_consistent": h.last_archive_crash_consistent,
    })
}

fn limits(l: &v1::Limits) -> Value {
    json!({"cpu_millis": l.cpu_millis, "memory_bytes": l.memory_bytes, "pids": l.pids})
}

/// An archive.
pub fn archive(a: &v1::ArchiveInfo) -> Value {
    json!({
        "key": a.key,
        "workspace_id": a.workspace_id,
        "archive_op_id": a.archive_op_id,
        "bytes": a.bytes,
        "uncompressed_bytes": a.uncompressed_bytes,
        "entries": a.entries,
        "sha256": a.sha256,
        "create_time": time(a.create_time.as_ref()),
        "volume_id": a.volume_id,
        "skipped_sockets": a.skipped_sockets,
        "crash_consistent": a.crash_consistent,
        "changed_files": a.changed_files,
    })
}

/// A workspace that the bucket knows.
pub fn rebuilt(w: &v1::RebuiltWorkspace) -> Value {
    json!({
        "id": w.id,
        "name": w.name,
        "owner": w.owner,
        "image": w.image,
        "archive": w.archive.as_ref().map(archive),
        "action": w.action().as_str_name(),
        "note": w.note,
    })
}

/// A volume of a workspace that is in no row.
pub fn unknown_volume(v: &v1::UnknownVolume) -> Value {
    json!({
        "host": v.host,
        "name": v.name,
        "workspace_id": v.workspace_id,
        "volume_id": v.volume_id,
    })
}

/// The answer of ExplainWorkspace.
pub fn explain(e: &v1::ExplainWorkspaceResponse) -> Value {
    json!({
        "workspace": e.workspace.as_ref().map(workspace),
        "why": e.why,
        "next": e.next,
        "next_time": time(e.next_time.as_ref()),
        "blockers": e.blockers,
        "last_safe_copy": e.last_safe_copy,
        "queue_position": e.queue_position,
        "queue_length": e.queue_length,
        "history": e.history.iter().map(|h| json!({
            "time": time(h.time.as_ref()),
            "actor": h.actor,
            "action": h.action,
            "detail": h.detail,
        })).collect::<Vec<_>>(),
    })
}

/// A lease.
pub fn keep_awake(id: &str, answer: &v1::KeepAwakeResponse) -> Value {
    json!({"id": id, "expire_time": time(answer.expire_time.as_ref())})
}

/// A host.
pub fn host(h: &v1::Host) -> Value {
    json!({
        "id": h.id,
        "name": h.name,
        "address": h.address,
        "cordoned": h.cordoned,
        "create_time": time(h.create_time.as_ref()),
        "observe_time": time(h.observe_time.as_ref()),
        "observe_error": h.observe_error,
        "workspace_count": h.workspace_count,
    })
}

/// A pass of the garbage collector.
pub fn gc_pass(p: &v1::GcPass) -> Value {
    json!({
        "items": p.items.iter().map(|i| json!({
            "keys": i.keys,
            "workspace_id": i.workspace_id,
            "verdict": i.verdict().as_str_name(),
            "why": i.why,
            "first_seen_time": time(i.first_seen_time.as_ref()),
            "due_time": time(i.due_time.as_ref()),
            "bytes": i.bytes,
        })).collect::<Vec<_>>(),
        "protected_count": p.protected_count,
        "total_count": p.total_count,
        "due_count": p.due_count,
        "truncated": p.truncated,
        "refusal": p.refusal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_times_are_the_protocols() {
        let value = workspace(&v1::Workspace {
            phase: v1::Phase::Running.into(),
            operation: v1::Operation::None.into(),
            desired_state: v1::DesiredState::Archived.into(),
            create_time: Some(prost_types::Timestamp {
                seconds: 0,
                nanos: 500_000_000,
            }),
            standby_ttl: Some(prost_types::Duration {
                seconds: 600,
                nanos: 0,
            }),
            ..v1::Workspace::default()
        });
        assert_eq!(value["phase"], "PHASE_RUNNING");
        assert_eq!(value["desired_state"], "DESIRED_STATE_ARCHIVED");
        assert_eq!(value["create_time"], "1970-01-01T00:00:00.500Z");
        assert_eq!(value["standby_ttl"], "600s");
        assert_eq!(value["delete_time"], Value::Null);
        assert_eq!(value["home"], Value::Null);
    }

    #[test]
    fn every_field_of_a_workspace_is_there() {
        // A field that is added to the protocol shall not be forgotten here.
        let proto = include_str!("../../../../proto/windlass/v1/workspace.proto");
        let body = proto.split("message Workspace {").nth(1).unwrap();
        let body = body.split("\n}").next().unwrap();
        let value = workspace(&v1::Workspace::default());
        let fields: Vec<&str> = body
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("//"))
            .filter_map(|line| line.split(" = ").next()?.split_whitespace().last())
            .collect();
        assert!(fields.len() >= 28, "{fields:?}");
        for field in fields {
            assert!(value.get(field).is_some(), "{field} is missing");
        }
    }
}
