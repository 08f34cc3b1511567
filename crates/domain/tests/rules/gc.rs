//! The garbage collector's rules.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;
use windlass_domain::{
    WorkspaceId,
    gc::{GcPlan, GcPolicy, Group, GroupKind, Row, Verdict, plan},
};

use crate::support::{now, op, t};

fn id(n: u128) -> WorkspaceId {
    WorkspaceId(Uuid::from_u128(n))
}

/// An archive of workspace `w`, made by operation `n` at second `n`.
fn archive(w: u128, n: u128) -> Group {
    Group {
        name: format!("{w}/{n}"),
        keys: vec![format!("{w}/{n}"), format!("{w}/{n}.meta")],
        workspace: Some(id(w)),
        op: Some(op(n)),
        kind: GroupKind::CompleteArchive,
        bytes: 1,
        written_at: t(i64::try_from(n).unwrap()),
    }
}

fn of_kind(kind: GroupKind, group: Group) -> Group {
    Group { kind, ..group }
}

fn row(n: u128) -> Row {
    Row {
        id: id(n),
        archive_key: None,
        restore_key: None,
        busy_archive_op: None,
        restores: vec![],
        deleted_at: None,
    }
}

type Sightings = HashMap<String, DateTime<Utc>>;

fn seen(groups: &[Group], ago: TimeDelta) -> Sightings {
    groups
        .iter()
        .map(|g| (g.name.clone(), now() - ago))
        .collect()
}

fn run(groups: &[Group], rows: &[Row], sightings: &Sightings, force: bool) -> GcPlan {
    let policy = GcPolicy::default();
    plan(groups.to_vec(), rows, sightings, &policy, force, now())
}

/// The names that go when everything has been an orphan for ages and the breaker is overridden.
fn doomed(groups: &[Group], rows: &[Row]) -> Vec<String> {
    let plan = run(groups, rows, &seen(groups, TimeDelta::days(30)), true);
    plan.doomed().map(|g| g.name.clone()).collect()
}

#[test]
fn the_newest_three_complete_archives_are_kept() {
    let groups: Vec<_> = [3, 1, 5, 2, 4].map(|n| archive(1, n)).into();
    assert_eq!(doomed(&groups, &[row(1)]), ["1/1", "1/2"]);
    // Loose data does not count as an archive, nor do those of others.
    let mut more = groups.clone();
    more.push(of_kind(GroupKind::Loose, archive(1, 9)));
    more.push(archive(2, 8));
    assert_eq!(doomed(&more, &[row(1), row(2)]), ["1/1", "1/2", "1/9"]);
}

#[test]
fn archives_and_checkpoints_do_not_push_each_other_out() {
    let checkpoint = |n| of_kind(GroupKind::Checkpoint, archive(1, n));
    let mut groups: Vec<_> = (1..=4).map(|n| archive(1, n)).collect();
    groups.extend((11..=16).map(checkpoint));
    let kept_by_name = Row {
        archive_key: Some("1/12".into()),
        ..row(1)
    };
    assert_eq!(doomed(&groups, &[row(1)]), ["1/1", "1/11", "1/12", "1/13"]);
    assert_eq!(doomed(&groups, &[kept_by_name]), ["1/1", "1/11", "1/13"]);
    // The other way about.
    groups.extend((21..=23).map(|n| archive(1, n)));
    let gone = doomed(&groups, &[row(1)]);
    assert_eq!(gone, ["1/1", "1/2", "1/3", "1/4", "1/11", "1/12", "1/13"]);
}

/// With a short interval most of what there is are checkpoints that newer ones replace.
#[test]
fn rotated_checkpoints_do_not_trip_the_breaker() {
    let checkpoint = |w, n| of_kind(GroupKind::Checkpoint, archive(w, n));
    let mut groups: Vec<_> = (1..=20).map(|n| checkpoint(1, n)).collect();
    let old = TimeDelta::days(30);
    let plan = run(&groups, &[row(1)], &seen(&groups, old), false);
    assert_eq!((plan.refusal.clone(), plan.doomed().count()), (None, 17));
    // Those of a workspace that no row knows do.
    groups.extend((1..=20).map(|n| checkpoint(2, n)));
    let plan = run(&groups, &[row(1)], &seen(&groups, old), false);
    assert!(plan.refusal.is_some());
    // And an empty database refuses these as well.
    let plan = run(&groups[..20], &[], &seen(&groups, old), true);
    assert_eq!((plan.refusal.is_some(), plan.doomed().count()), (true, 0));
}

#[test]
fn every_protection() {
    let newest = [archive(1, 10), archive(1, 11), archive(1, 12)];
    let with = |g: Group| [newest.to_vec(), vec![g]].concat();
    let named = Row {
        archive_key: Some("1/1".into()),
        ..row(1)
    };
    let wished = Row {
        restore_key: Some("1/1".into()),
        ..row(1)
    };
    let busy = Row {
        busy_archive_op: Some(op(1)),
        ..row(1)
    };
    let restoring = Row {
        restores: vec![op(1)],
        ..row(1)
    };
    let deleted = |ago| Row {
        deleted_at: Some(now() - ago),
        ..row(1)
    };
    let marker = || of_kind(GroupKind::RestoreMarker, archive(1, 1));
    let loose = || of_kind(GroupKind::Loose, archive(1, 1));
    let table = [
        (true, "orphan", with(archive(1, 1)), row(1)),
        (false, "the row's archive_key", with(archive(1, 1)), named),
        (false, "to be restored from", with(archive(1, 1)), wished),
        (
            false,
            "an operation in progress, or in ERROR",
            with(archive(1, 1)),
            busy.clone(),
        ),
        (false, "the same, not yet complete", with(loose()), busy),
        (true, "loose", with(loose()), row(1)),
        (
            true,
            "marker of a restore long gone",
            with(marker()),
            row(1),
        ),
        (
            false,
            "marker of the present volume",
            with(marker()),
            restoring.clone(),
        ),
        (
            true,
            "a restore protects no archive",
            with(archive(1, 1)),
            restoring,
        ),
        (
            false,
            "deleted, within its grace",
            with(archive(1, 1)),
            deleted(TimeDelta::hours(24)),
        ),
    ];
    for (goes, protection, groups, row) in table {
        let expected: &[&str] = if goes { &["1/1"] } else { &[] };
        assert_eq!(doomed(&groups, &[row]), expected, "{protection}");
    }
    // First of all: nothing of a deleted workspace past its grace is protected.
    let gone = Row {
        archive_key: Some("1/12".into()),
        busy_archive_op: Some(op(11)),
        ..deleted(TimeDelta::hours(25))
    };
    assert_eq!(doomed(&newest, &[gone]).len(), 3);
    // The protection of one workspace is none of another's.
    let foreign = Row {
        busy_archive_op: Some(op(1)),
        ..row(2)
    };
    assert_eq!(doomed(&with(archive(1, 1)), &[row(1), foreign]), ["1/1"]);
}

#[test]
fn an_orphan_waits_out_its_grace_across_passes() {
    let groups: Vec<_> = (1..=20).map(|n| archive(1, n)).collect();
    let rows = [row(1)];
    let verdict = |sightings: &Sightings| {
        let plan = run(&groups, &rows, sightings, true);
        plan.items
            .into_iter()
            .find(|(g, _)| g.name == "1/1")
            .unwrap()
            .1
    };
    let waits = |v: Verdict| matches!(v, Verdict::Waiting { .. });
    match verdict(&HashMap::new()) {
        Verdict::Waiting {
            first_seen,
            due,
            unknown,
            ..
        } => {
            assert_eq!((first_seen, unknown), (now(), false));
            assert_eq!(due, now() + TimeDelta::hours(2));
        }
        other => panic!("{other:?}"),
    }
    assert!(waits(verdict(&seen(&groups, TimeDelta::minutes(119)))));
    assert!(!waits(verdict(&seen(&groups, TimeDelta::minutes(120)))));
    // Without any grace at all, still not by the pass that sees it first.
    let eager = GcPolicy {
        grace: TimeDelta::zero(),
        ..GcPolicy::default()
    };
    let first = plan(groups.clone(), &rows, &HashMap::new(), &eager, true, now());
    assert_eq!(first.doomed().count(), 0);
    assert_eq!(first.orphans().count(), 17);
}

#[test]
fn the_unknown_waits_seven_days() {
    let nameless = Group {
        workspace: None,
        op: None,
        ..archive(9, 2)
    };
    for group in [archive(9, 1), of_kind(GroupKind::Loose, nameless)] {
        let groups = [group];
        let at = |ago| {
            run(&groups, &[row(1)], &seen(&groups, ago), true)
                .doomed()
                .count()
        };
        assert_eq!(at(TimeDelta::days(7) - TimeDelta::seconds(1)), 0);
        assert_eq!(at(TimeDelta::days(7)), 1);
        let plan = run(&groups, &[row(1)], &HashMap::new(), true);
        assert!(matches!(
            plan.items[0].1,
            Verdict::Waiting { unknown: true, .. }
        ));
    }
}

#[test]
fn an_empty_database_deletes_nothing_whatever_the_override() {
    let groups = [archive(1, 1)];
    let plan = run(&groups, &[], &seen(&groups, TimeDelta::days(30)), true);
    assert!(plan.refusal.is_some());
    assert_eq!(plan.doomed().count(), 0);
    assert_eq!(plan.orphans().count(), 1);
}

#[test]
fn more_than_20_percent_needs_the_override() {
    let rows: Vec<_> = (1..=100).map(row).collect();
    let of = |orphans: u128| -> Vec<Group> {
        let unknown = (1..=orphans).map(|n| archive(1000, n));
        unknown
            .chain((1..=100 - orphans).map(|w| archive(w, 1)))
            .collect()
    };
    let old = TimeDelta::days(30);
    let (at, over) = (of(20), of(21));
    let plan = run(&at, &rows, &seen(&at, old), false);
    assert_eq!((plan.refusal.clone(), plan.doomed().count()), (None, 20));
    let plan = run(&over, &rows, &seen(&over, old), false);
    assert!(plan.refusal.is_some());
    assert_eq!(plan.doomed().count(), 0);
    let plan = run(&over, &rows, &seen(&over, old), true);
    assert_eq!((plan.refusal.clone(), plan.doomed().count()), (None, 21));
}

#[test]
fn the_breaker_counts_archives_among_archives() {
    let mut groups: Vec<_> = (1..=3).map(|n| archive(1000, n)).collect();
    groups.push(archive(1, 1));
    let restores = (1..=96).map(op).collect();
    groups.extend((1..=96).map(|n| {
        let marker = archive(2, n);
        of_kind(
            GroupKind::RestoreMarker,
            Group {
                name: format!("r{n}"),
                ..marker
            },
        )
    }));
    let rows = [row(1), Row { restores, ..row(2) }];
    let plan = run(&groups, &rows, &seen(&groups, TimeDelta::days(30)), false);
    assert!(
        plan.refusal.is_some(),
        "3 of 4 archives, however many markers there are"
    );
}
