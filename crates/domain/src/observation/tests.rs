use chrono::TimeDelta;
use uuid::Uuid;

use super::*;
use crate::ids::{OpId, VolumeId};

fn t0() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn archive(n: u128, at: i64) -> ArchiveEvidence {
    ArchiveEvidence {
        archive_op_id: OpId(Uuid::from_u128(n)),
        key: format!("k{n}"),
        bytes: 1,
        sha256: "00".into(),
        created_at: t0() + TimeDelta::seconds(at),
        uncompressed_bytes: 1,
        entries: 1,
        volume_id: None,
        crash_consistent: false,
        changed_files: 0,
    }
}

#[test]
fn absent_resources_are_written_as_absent() {
    let c = conditions(
        &Conditions::default(),
        Some(HostSeen::default()),
        Some(ArchivesSeen::default()),
        None,
        None,
        t0(),
    );
    let status = |c: &Option<Condition>| c.as_ref().unwrap().status;
    assert_eq!(status(&c.container_ready), ConditionStatus::False);
    assert_eq!(status(&c.volume_ready), ConditionStatus::False);
    assert_eq!(status(&c.archive_ready), ConditionStatus::False);
}

#[test]
fn nothing_observed_changes_nothing() {
    let c = conditions(&Conditions::default(), None, None, None, None, t0());
    assert_eq!(c, Conditions::default());
    assert_eq!(serde_json::to_string(&c).unwrap(), "{}");
}

#[test]
fn a_store_never_seen_is_unknown_and_a_store_gone_keeps_its_last_word() {
    let first = conditions(
        &Conditions::default(),
        Some(HostSeen::default()),
        None,
        Some("k1"),
        None,
        t0(),
    );
    assert_eq!(
        first.archive_ready.as_ref().unwrap().status,
        ConditionStatus::Unknown
    );
    let seen = ArchivesSeen {
        archives: vec![archive(1, 0).into()],
        restores: vec![],
    };
    let second = conditions(&first, None, Some(seen), Some("k1"), None, t0());
    let third = conditions(
        &second,
        Some(HostSeen::default()),
        None,
        Some("k1"),
        None,
        t0(),
    );
    assert_eq!(
        third.archive_ready.as_ref().unwrap().status,
        ConditionStatus::True
    );
}

#[test]
fn transition_time_moves_only_with_status() {
    let first = conditions(
        &Conditions::default(),
        Some(HostSeen::default()),
        None,
        None,
        None,
        t0(),
    );
    let later = t0() + TimeDelta::seconds(5);
    let same = conditions(&first, Some(HostSeen::default()), None, None, None, later);
    assert_eq!(first, same);
    let volume = VolumeEvidence {
        name: "v".into(),
        volume_id: Some(VolumeId(Uuid::from_u128(1))),
        owned: true,
    };
    let seen = HostSeen {
        volume: Some(volume.into()),
        ..HostSeen::default()
    };
    let changed = conditions(&same, Some(seen), None, None, None, later);
    assert_eq!(changed.volume_ready.unwrap().last_transition_time, later);
    assert_eq!(changed.container_ready.unwrap().last_transition_time, t0());
}

#[test]
fn archives_are_newest_first_and_bounded_but_keep_the_one_of_record() {
    let all = (0..30).map(|n| Arc::new(archive(n, n as i64))).collect();
    let view = in_view(all, [Some("k2"), Some("k1")]);
    assert_eq!(view.len(), MAX_ARCHIVES + 2);
    assert_eq!(view[0].key, "k29");
    assert_eq!(view[MAX_ARCHIVES].key, "k2");
    assert_eq!(view[MAX_ARCHIVES + 1].key, "k1");
}

#[test]
fn checkpoints_hide_no_archive() {
    let checkpoint = |n| ArchiveEvidence {
        crash_consistent: true,
        ..archive(n, n as i64)
    };
    let all = (0..3).map(|n| archive(n, n as i64));
    let all = all.chain((10..40).map(checkpoint));
    let all = all.map(Arc::new).collect();
    let view = in_view(all, [None, Some("k10")]);
    assert_eq!(view.len(), 3 + MAX_CHECKPOINTS + 1);
    assert_eq!(view[0].key, "k39");
    assert_eq!(view[MAX_CHECKPOINTS].key, "k10", "it is named");
    assert_eq!(view[MAX_CHECKPOINTS + 1].key, "k2");
}

#[test]
fn the_restore_in_evidence_is_the_one_that_made_the_present_volume() {
    let restore = |n| RestoreEvidence {
        op_id: OpId(Uuid::from_u128(n)),
        archive_key: "k".into(),
    };
    let seen = HostSeen {
        volume: Some(Arc::new(VolumeEvidence {
            name: "v".into(),
            volume_id: Some(VolumeId(Uuid::from_u128(2))),
            owned: true,
        })),
        ..HostSeen::default()
    };
    let archives = ArchivesSeen {
        archives: vec![],
        restores: vec![restore(1), restore(2), restore(3)],
    };
    let c = conditions(
        &Conditions::default(),
        Some(seen),
        Some(archives),
        None,
        None,
        t0(),
    );
    assert_eq!(c.evidence.restore, Some(Box::new(restore(2))));
}

#[test]
fn a_job_that_stands_still_changes_nothing() {
    let job = |done_bytes, second| {
        Box::new(JobEvidence {
            op_id: OpId(Uuid::from_u128(1)),
            stage: "packing".into(),
            done_bytes,
            total_bytes: 9,
            updated_at: Some(t0() + TimeDelta::seconds(second)),
        })
    };
    let seen = |previous: &Conditions, job| {
        let host = HostSeen {
            job: Some(job),
            ..HostSeen::default()
        };
        conditions(previous, Some(host), None, None, None, t0())
    };
    let first = seen(&Conditions::default(), job(3, 0));
    assert_eq!(first.evidence.job, Some(job(3, 0)));
    assert_eq!(seen(&first, job(3, 1)), first);
    assert_eq!(seen(&first, job(4, 1)).evidence.job, Some(job(4, 1)));
    // As the last release wrote it.
    let mut json = serde_json::to_value(&first).unwrap();
    json["evidence"]["job"]
        .as_object_mut()
        .unwrap()
        .remove("updated_at")
        .unwrap();
    let old: Conditions = serde_json::from_value(json).unwrap();
    assert_eq!(old.evidence.job.as_ref().unwrap().updated_at, None);
    assert_eq!(seen(&old, job(3, 1)), old);
}

#[test]
fn the_column_round_trips() {
    let c = conditions(
        &Conditions::default(),
        Some(HostSeen::default()),
        Some(ArchivesSeen {
            archives: vec![archive(1, 0).into()],
            restores: vec![],
        }),
        Some("k1"),
        None,
        t0(),
    );
    let json = serde_json::to_value(&c).unwrap();
    assert_eq!(json["storage.archive_ready"]["status"], "True");
    assert_eq!(serde_json::from_value::<Conditions>(json).unwrap(), c);
}
