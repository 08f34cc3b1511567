//! Wire to domain and back. Parsing is strict: UNSPECIFIED, bad UUIDs and out-of-range times are errors
//! that name their field.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use windlass_domain::{self as domain, conditions};

use crate::v1;

/// A field that holds no valid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Path of the field, such as `workspace.standby_ttl`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl InvalidField {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

impl std::fmt::Display for InvalidField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

impl std::error::Error for InvalidField {}

/// A required UUID.
pub fn uuid(field: &str, text: &str) -> Result<Uuid, InvalidField> {
    if text.is_empty() {
        return Err(InvalidField::new(field, "is required"));
    }
    Uuid::try_parse(text).map_err(|_| InvalidField::new(field, "must be a UUID"))
}

/// An optional UUID: empty is absent.
pub fn optional_uuid(field: &str, text: &str) -> Result<Option<Uuid>, InvalidField> {
    if text.is_empty() {
        Ok(None)
    } else {
        uuid(field, text).map(Some)
    }
}

/// A timestamp for the wire.
pub fn timestamp(at: DateTime<Utc>) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.timestamp(),
        nanos: at.timestamp_subsec_nanos().min(999_999_999) as i32,
    }
}

/// A timestamp from the wire.
pub fn time(field: &str, at: &prost_types::Timestamp) -> Result<DateTime<Utc>, InvalidField> {
    u32::try_from(at.nanos)
        .ok()
        .and_then(|nanos| DateTime::from_timestamp(at.seconds, nanos))
        .ok_or_else(|| InvalidField::new(field, "is out of range"))
}

/// A duration for the wire.
pub fn duration(delta: TimeDelta) -> prost_types::Duration {
    prost_types::Duration {
        seconds: delta.num_seconds(),
        nanos: delta.subsec_nanos(),
    }
}

/// A duration from the wire.
pub fn delta(field: &str, d: &prost_types::Duration) -> Result<TimeDelta, InvalidField> {
    let valid_sign = d.seconds == 0 || d.nanos == 0 || (d.seconds > 0) == (d.nanos > 0);
    let nanos_in_range = d.nanos.unsigned_abs() < 1_000_000_000;
    TimeDelta::try_seconds(d.seconds)
        .filter(|_| valid_sign && nanos_in_range)
        .and_then(|s| s.checked_add(&TimeDelta::nanoseconds(i64::from(d.nanos))))
        .ok_or_else(|| InvalidField::new(field, "is not a valid duration"))
}

macro_rules! both_ways {
    ($wire:ty, $domain:ty, { $($w:ident <=> $d:ident),+ $(,)? }, $none:ident) => {
        impl From<$domain> for $wire {
            fn from(value: $domain) -> Self {
                match value { $(<$domain>::$d => Self::$w),+ }
            }
        }

        impl TryFrom<$wire> for $domain {
            type Error = &'static str;
            fn try_from(value: $wire) -> Result<Self, &'static str> {
                match value {
                    $(<$wire>::$w => Ok(Self::$d),)+
                    <$wire>::$none => Err("must be specified"),
                }
            }
        }
    };
}

both_ways!(v1::Phase, domain::Phase, {
    Pending <=> Pending,
    Archived <=> Archived,
    Standby <=> Standby,
    Running <=> Running,
    Error <=> Error,
    Deleting <=> Deleting,
    Deleted <=> Deleted,
}, Unspecified);

both_ways!(v1::DesiredState, domain::DesiredState, {
    Archived <=> Archived,
    Standby <=> Standby,
    Running <=> Running,
    Deleted <=> Deleted,
}, Unspecified);

both_ways!(v1::Operation, domain::Operation, {
    None <=> None,
    Provisioning <=> Provisioning,
    CreateEmptyArchive <=> CreateEmptyArchive,
    Restoring <=> Restoring,
    Starting <=> Starting,
    Archiving <=> Archiving,
    Stopping <=> Stopping,
    Deleting <=> Deleting,
    Checkpointing <=> Checkpointing,
}, Unspecified);

both_ways!(v1::ConditionStatus, domain::ConditionStatus, {
    True <=> True,
    False <=> False,
    Unknown <=> Unknown,
}, Unspecified);

both_ways!(v1::HomeLocation, domain::HomeLocation, {
    None <=> None,
    Volume <=> Volume,
    Archive <=> Archive,
}, Unspecified);

both_ways!(v1::ContainerState, conditions::ContainerState, {
    Created <=> Created,
    Running <=> Running,
    Paused <=> Paused,
    Restarting <=> Restarting,
    Removing <=> Removing,
    Exited <=> Exited,
    Dead <=> Dead,
}, Unspecified);

/// An enum field from the wire: unknown numbers and UNSPECIFIED are errors.
pub fn enumeration<W, D>(field: &str, number: i32) -> Result<D, InvalidField>
where
    W: TryFrom<i32>,
    D: TryFrom<W, Error = &'static str>,
{
    let wire = W::try_from(number).map_err(|_| InvalidField::new(field, "is not a known value"))?;
    D::try_from(wire).map_err(|why| InvalidField::new(field, why))
}

/// The conditions for the wire, in a fixed order.
pub fn conditions(conditions: &domain::Conditions) -> Vec<v1::Condition> {
    [
        ("infra.container_ready", &conditions.container_ready),
        ("storage.volume_ready", &conditions.volume_ready),
        ("storage.archive_ready", &conditions.archive_ready),
    ]
    .into_iter()
    .filter_map(|(key, condition)| {
        condition.as_ref().map(|c| v1::Condition {
            r#type: key.to_owned(),
            status: v1::ConditionStatus::from(c.status).into(),
            reason: c.reason.to_string(),
            message: c.message.clone(),
            last_transition_time: Some(timestamp(c.last_transition_time)),
        })
    })
    .collect()
}

/// An archive in evidence, for the wire.
pub fn archive_info(
    workspace: domain::WorkspaceId,
    archive: &conditions::ArchiveEvidence,
) -> v1::ArchiveInfo {
    v1::ArchiveInfo {
        key: archive.key.clone(),
        workspace_id: workspace.to_string(),
        archive_op_id: archive.archive_op_id.to_string(),
        bytes: archive.bytes,
        uncompressed_bytes: archive.uncompressed_bytes,
        entries: archive.entries,
        sha256: archive.sha256.clone(),
        create_time: Some(timestamp(archive.created_at)),
        volume_id: archive.volume_id.map(|v| v.to_string()).unwrap_or_default(),
        skipped_sockets: 0,
        crash_consistent: archive.crash_consistent,
        changed_files: archive.changed_files,
    }
}

/// Limits for the wire.
pub fn limits(limits: domain::control::Limits) -> v1::Limits {
    v1::Limits {
        cpu_millis: limits.cpu_millis.unwrap_or(0),
        memory_bytes: limits.memory_bytes.unwrap_or(0),
        pids: limits.pids.unwrap_or(0),
    }
}

/// Limits from the wire; `field` is the path of the message.
pub fn limits_from(
    field: &str,
    limits: &v1::Limits,
) -> Result<domain::control::Limits, InvalidField> {
    let nonzero = |n: u32| (n != 0).then_some(n);
    if limits.cpu_millis > 1_024_000 {
        return Err(InvalidField::new(
            format!("{field}.cpu_millis"),
            "must be at most 1024000",
        ));
    }
    let memory = (limits.memory_bytes != 0).then_some(limits.memory_bytes);
    if memory.is_some_and(|m| !(16 << 20..=1 << 50).contains(&m)) {
        return Err(InvalidField::new(
            format!("{field}.memory_bytes"),
            "must be 0 or between 16 MiB and 1 PiB",
        ));
    }
    if (1..16).contains(&limits.pids) || limits.pids > 4_194_304 {
        return Err(InvalidField::new(
            format!("{field}.pids"),
            "must be 0 or between 16 and 4194304",
        ));
    }
    Ok(domain::control::Limits {
        cpu_millis: nonzero(limits.cpu_millis),
        memory_bytes: memory,
        pids: nonzero(limits.pids),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_is_rejected_by_name() {
        let error = enumeration::<v1::Phase, domain::Phase>("phase", 0).unwrap_err();
        assert_eq!(error, InvalidField::new("phase", "must be specified"));
        let error = enumeration::<v1::Phase, domain::Phase>("phase", 99).unwrap_err();
        assert_eq!(error.description, "is not a known value");
    }

    #[test]
    fn every_variant_goes_there_and_back() {
        for &phase in domain::Phase::ALL {
            assert_eq!(v1::Phase::from(phase).try_into(), Ok(phase));
        }
        for &operation in domain::Operation::ALL {
            assert_eq!(v1::Operation::from(operation).try_into(), Ok(operation));
        }
        for &desired in domain::DesiredState::ALL {
            assert_eq!(v1::DesiredState::from(desired).try_into(), Ok(desired));
        }
    }

    #[test]
    fn garbage_times_are_errors() {
        let bad = prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: -1,
        };
        assert!(time("t", &bad).is_err());
        let bad = prost_types::Duration {
            seconds: i64::MIN,
            nanos: i32::MIN,
        };
        assert!(delta("d", &bad).is_err());
        let mixed = prost_types::Duration {
            seconds: 1,
            nanos: -1,
        };
        assert!(delta("d", &mixed).is_err());
    }

    #[test]
    fn limits_name_their_field() {
        let tiny = v1::Limits {
            memory_bytes: 1,
            ..v1::Limits::default()
        };
        assert_eq!(
            limits_from("workspace.limits", &tiny).unwrap_err().field,
            "workspace.limits.memory_bytes"
        );
    }
}
