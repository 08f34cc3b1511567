//! The garbage collector's rules: which archives are protected, which wait out their grace, and when a
//! pass refuses to delete anything at all.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::ids::{OpId, WorkspaceId};

/// The numbers the rules go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcPolicy {
    /// Newest complete archives kept per workspace, and as many checkpoints beside them.
    pub retention: usize,
    /// How long an orphan must have been seen as one.
    pub grace: TimeDelta,
    /// The same for objects whose workspace is in no row.
    pub unknown_grace: TimeDelta,
    /// How long after its deletion a workspace's archives are kept.
    pub deleted_grace: TimeDelta,
    /// The largest share of all archives, and of all groups, that one pass deletes, in per cent.
    pub breaker_percent: u32,
}

impl Default for GcPolicy {
    fn default() -> Self {
        Self {
            retention: 3,
            grace: TimeDelta::hours(2),
            unknown_grace: TimeDelta::days(7),
            deleted_grace: TimeDelta::hours(24),
            breaker_percent: 20,
        }
    }
}

/// A group of objects that live and die together: an archive with its marker, or a restore marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Identifies the group across passes: the key of the archive's data object, or of the marker.
    pub name: String,
    /// Keys of its objects.
    pub keys: Vec<String>,
    /// The workspace its key names; `None` if the key is not one of ours.
    pub workspace: Option<WorkspaceId>,
    /// The operation its key names.
    pub op: Option<OpId>,
    /// What it is.
    pub kind: GroupKind,
    /// Bytes of its objects.
    pub bytes: u64,
    /// When its newest object was written.
    pub written_at: DateTime<Utc>,
}

/// What a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Data and marker.
    CompleteArchive,
    /// The same, taken while the container ran.
    Checkpoint,
    /// One of both only, or a key of no known form.
    Loose,
    /// The marker of a completed restore.
    RestoreMarker,
}

/// What gc needs to know of a workspace's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: WorkspaceId,
    /// The archive it names.
    pub archive_key: Option<String>,
    /// The archive it is to be restored from, as long as it was not.
    pub restore_key: Option<String>,
    /// Its archive_op_id, if it has an operation in progress or is in ERROR.
    pub busy_archive_op: Option<OpId>,
    /// The ids that name a restore it still needs: its op_id, and its home volume's volume_id.
    pub restores: Vec<OpId>,
    /// When it was deleted.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What becomes of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A workspace needs it.
    Protected(&'static str),
    /// An orphan within its grace.
    Waiting {
        /// Why it is one.
        why: &'static str,
        /// When it was first seen as one.
        first_seen: DateTime<Utc>,
        /// When its grace ends.
        due: DateTime<Utc>,
        /// Whether its workspace is in no row.
        unknown: bool,
    },
    /// Its grace is over.
    Delete {
        /// Why it is an orphan.
        why: &'static str,
        /// When it was first seen as one.
        first_seen: DateTime<Utc>,
    },
}

/// What a pass decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcPlan {
    /// Every group with its verdict.
    pub items: Vec<(Group, Verdict)>,
    /// Why nothing is deleted although something is due.
    pub refusal: Option<String>,
}

impl GcPlan {
    /// The groups that are to be deleted; none if the pass refuses.
    pub fn doomed(&self) -> impl Iterator<Item = &Group> {
        let refused = self.refusal.is_some();
        self.items
            .iter()
            .filter(move |(_, v)| !refused && matches!(v, Verdict::Delete { .. }))
            .map(|(g, _)| g)
    }

    /// The groups that are orphans, doomed or waiting.
    pub fn orphans(&self) -> impl Iterator<Item = &Group> {
        self.items
            .iter()
            .filter(|(_, v)| !matches!(v, Verdict::Protected(_)))
            .map(|(g, _)| g)
    }
}

/// The rows by id.
pub fn by_id(rows: &[Row]) -> HashMap<WorkspaceId, &Row> {
    rows.iter().map(|row| (row.id, row)).collect()
}

/// Decides about every group. `sightings` holds when each was first seen as an orphan.
pub fn plan(
    groups: Vec<Group>,
    rows: &[Row],
    sightings: &HashMap<String, DateTime<Utc>>,
    policy: &GcPolicy,
    override_breaker: bool,
    now: DateTime<Utc>,
) -> GcPlan {
    let by_id = by_id(rows);
    let retained = retained(&groups, policy.retention);
    let items: Vec<_> = groups
        .into_iter()
        .map(|group| {
            let row = group.workspace.and_then(|id| by_id.get(&id).copied());
            let verdict = match orphan(&group, row, &retained, policy, now) {
                Err(why) => Verdict::Protected(why),
                Ok(why) => ripen(&group, why, row.is_none(), sightings, policy, now),
            };
            (group, verdict)
        })
        .collect();
    GcPlan {
        refusal: refusal(&items, rows, policy, override_breaker),
        items,
    }
}

/// Whether a row needs this group by now: asked once more immediately before it is deleted. Retention is
/// not asked again, since archives only ever become older.
pub fn is_needed(
    group: &Group,
    rows: &HashMap<WorkspaceId, &Row>,
    policy: &GcPolicy,
    now: DateTime<Utc>,
) -> bool {
    let row = group.workspace.and_then(|id| rows.get(&id).copied());
    rows.is_empty() || orphan(group, row, &HashSet::new(), policy, now).is_err()
}

/// Why a checkpoint goes whose workspace has newer ones.
const ROTATED: &str = "newer checkpoints of its workspace are kept";

/// Why a group is an orphan, or `Err` with why it is protected.
fn orphan(
    group: &Group,
    row: Option<&Row>,
    retained: &HashSet<String>,
    policy: &GcPolicy,
    now: DateTime<Utc>,
) -> Result<&'static str, &'static str> {
    let Some(row) = row else {
        return Ok("its workspace is in no row");
    };
    if let Some(deleted_at) = row.deleted_at {
        if now - deleted_at > policy.deleted_grace {
            return Ok("its workspace was deleted");
        }
        return Err("its workspace was deleted, but may still be undeleted");
    }
    if row
        .archive_key
        .as_ref()
        .is_some_and(|key| group.keys.contains(key))
    {
        return Err("it is the archive its workspace names");
    }
    if row
        .restore_key
        .as_ref()
        .is_some_and(|key| group.keys.contains(key))
    {
        return Err("its workspace is to be restored from it");
    }
    if group.op.is_some() && group.op == row.busy_archive_op {
        return Err("its operation is in progress, or ended in ERROR");
    }
    match group.kind {
        GroupKind::RestoreMarker if group.op.is_some_and(|op| row.restores.contains(&op)) => {
            Err("it marks the restore of the present volume")
        }
        GroupKind::RestoreMarker => Ok("it marks a restore whose volume is gone"),
        GroupKind::CompleteArchive if retained.contains(&group.name) => {
            Err("it is among the newest archives of its workspace")
        }
        GroupKind::CompleteArchive => Ok("newer archives of its workspace are kept"),
        GroupKind::Checkpoint if retained.contains(&group.name) => {
            Err("it is among the newest checkpoints of its workspace")
        }
        GroupKind::Checkpoint => Ok(ROTATED),
        GroupKind::Loose => Ok("it belongs to no complete archive"),
    }
}

/// The names of the newest complete archives of each workspace, and of its newest checkpoints: neither
/// pushes out the other.
fn retained(groups: &[Group], retention: usize) -> HashSet<String> {
    let mut by_workspace: HashMap<(WorkspaceId, bool), Vec<&Group>> = HashMap::new();
    for group in groups.iter().filter(|g| is_archive(g)) {
        if let Some(id) = group.workspace {
            let checkpoint = group.kind == GroupKind::Checkpoint;
            by_workspace
                .entry((id, checkpoint))
                .or_default()
                .push(group);
        }
    }
    by_workspace
        .into_values()
        .flat_map(|mut archives| {
            archives.sort_by(|a, b| (b.written_at, &b.name).cmp(&(a.written_at, &a.name)));
            archives.truncate(retention);
            archives.into_iter().map(|g| g.name.clone())
        })
        .collect()
}

fn is_archive(group: &Group) -> bool {
    match group.kind {
        GroupKind::CompleteArchive | GroupKind::Checkpoint => true,
        GroupKind::Loose | GroupKind::RestoreMarker => false,
    }
}

fn ripen(
    group: &Group,
    why: &'static str,
    unknown: bool,
    sightings: &HashMap<String, DateTime<Utc>>,
    policy: &GcPolicy,
    now: DateTime<Utc>,
) -> Verdict {
    let seen_before = sightings.get(&group.name).copied();
    let first_seen = seen_before.unwrap_or(now);
    let grace = if unknown {
        policy.unknown_grace
    } else {
        policy.grace
    };
    let due = first_seen + grace;
    // An orphan is never deleted by the pass that sees it first.
    if seen_before.is_some() && due <= now {
        Verdict::Delete { why, first_seen }
    } else {
        Verdict::Waiting {
            why,
            first_seen,
            due,
            unknown,
        }
    }
}

fn refusal(
    items: &[(Group, Verdict)],
    rows: &[Row],
    policy: &GcPolicy,
    override_breaker: bool,
) -> Option<String> {
    let any_doomed = items
        .iter()
        .any(|(_, v)| matches!(v, Verdict::Delete { .. }));
    if !any_doomed {
        return None;
    }
    if rows.is_empty() {
        return Some("the database has no workspaces: it may be the wrong one".to_owned());
    }
    // A checkpoint that newer ones replace is no loss, and with a short interval most of what there is: it
    // is not what the breaker is for.
    let is_doomed =
        |(_, v): &&(Group, Verdict)| matches!(v, Verdict::Delete { why, .. } if *why != ROTATED);
    let doomed = items.iter().filter(is_doomed).count();
    // Archives are counted among archives too: many markers must not make their loss look small.
    let archives = items.iter().filter(|(g, _)| is_archive(g)).count();
    let doomed_archives = items
        .iter()
        .filter(|(g, _)| is_archive(g))
        .filter(is_doomed)
        .count();
    [
        (doomed_archives, archives, "archives"),
        (doomed, items.len(), "groups"),
    ]
    .into_iter()
    .filter(|_| !override_breaker)
    .find(|(part, whole, _)| *part as u64 * 100 > *whole as u64 * u64::from(policy.breaker_percent))
    .map(|(part, whole, what)| {
        format!(
            "{part} of {whole} {what} would be deleted, more than {} % in one pass; run with the override if that is meant",
            policy.breaker_percent
        )
    })
}
