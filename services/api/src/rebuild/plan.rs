//! What becomes of each workspace that the bucket knows. Pure, and the same for the same inputs: what a dry
//! run tells is what is done after it.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use chrono::{DateTime, Utc};
use windlass_db::read::KnownWorkspace;
use windlass_domain::{WorkspaceId, names};
use windlass_proto::{
    convert,
    v1::{ArchiveInfo, RebuildAction, UnknownVolume, WorkspaceLabel},
};

/// Longest name of a user, in characters.
const MAX_OWNER: usize = 63;
/// Digits of the id in a name that was taken.
const SUFFIX: usize = 8;

/// Why a deletion cannot be taken back.
pub const NAME_TAKEN: &str = "its owner has another workspace of that name";
pub const NOTHING_LEFT: &str = "nothing is left that it could come back with";

/// A complete archive, with what its marker says of its workspace.
#[derive(Clone, Debug)]
pub struct Found {
    pub archive: ArchiveInfo,
    pub label: WorkspaceLabel,
}

/// What stands in for what a marker does not say.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// Name of the owner: whoever asks.
    pub owner: String,
    /// The image.
    pub image: String,
}

/// One workspace.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub id: WorkspaceId,
    pub owner: String,
    /// The name it gets, and what it is called if that is taken meanwhile.
    pub names: Vec<String>,
    pub image: String,
    pub archive: ArchiveInfo,
    pub action: RebuildAction,
    pub note: String,
}

/// Decides about every workspace that has a complete archive, the most recently archived first: of two of one
/// name it is the one that keeps it.
pub fn plan(
    found: Vec<Found>,
    known: &[KnownWorkspace],
    volumes: &[UnknownVolume],
    fallback: &Fallback,
    include_deleted: bool,
) -> Vec<Item> {
    let rows: HashMap<WorkspaceId, &KnownWorkspace> = known.iter().map(|k| (k.id, k)).collect();
    let live = known.iter().filter(|k| !k.deleted);
    let mut taken: HashSet<(String, String)> =
        live.map(|k| (k.owner.clone(), k.name.clone())).collect();
    newest(found)
        .into_iter()
        .map(|(id, found)| match rows.get(&id) {
            Some(row) => known_item(id, found, row, include_deleted, &mut taken),
            None => new_item(id, found, volumes, fallback, &mut taken),
        })
        .collect()
}

fn time(archive: &ArchiveInfo) -> Option<DateTime<Utc>> {
    let at = archive.create_time.as_ref()?;
    convert::time("create_time", at).ok()
}

/// The newest complete archive of each workspace, the newest of all first.
fn newest(found: Vec<Found>) -> Vec<(WorkspaceId, Found)> {
    let age = |f: &Found| (time(&f.archive), f.archive.key.clone());
    let mut by_id: HashMap<WorkspaceId, Found> = HashMap::new();
    for one in found {
        let Ok(id) = one.archive.workspace_id.parse() else {
            continue;
        };
        match by_id.entry(id) {
            Entry::Vacant(entry) => drop(entry.insert(one)),
            Entry::Occupied(mut entry) if age(entry.get()) < age(&one) => drop(entry.insert(one)),
            Entry::Occupied(_) => {}
        }
    }
    let mut newest: Vec<_> = by_id.into_iter().collect();
    newest.sort_by_cached_key(|(id, f)| std::cmp::Reverse((time(&f.archive), id.0)));
    newest
}

fn known_item(
    id: WorkspaceId,
    found: Found,
    row: &KnownWorkspace,
    include_deleted: bool,
    taken: &mut HashSet<(String, String)>,
) -> Item {
    let (action, note) = match (row.deleted, include_deleted) {
        (false, _) => (RebuildAction::Exists, ""),
        (true, false) => (RebuildAction::Deleted, ""),
        (true, true) if row.gone => (RebuildAction::Conflict, NOTHING_LEFT),
        (true, true) if !taken.insert((row.owner.clone(), row.name.clone())) => {
            (RebuildAction::Conflict, NAME_TAKEN)
        }
        (true, true) => (RebuildAction::Undelete, ""),
    };
    Item {
        id,
        owner: row.owner.clone(),
        names: vec![row.name.clone()],
        image: found.label.image,
        archive: found.archive,
        action,
        note: note.to_owned(),
    }
}

fn new_item(
    id: WorkspaceId,
    found: Found,
    volumes: &[UnknownVolume],
    fallback: &Fallback,
    taken: &mut HashSet<(String, String)>,
) -> Item {
    let mut notes = Vec::new();
    let owner = found.label.owner;
    let owner = if owner.is_empty() || owner.chars().count() > MAX_OWNER {
        notes.push("its marker names no owner: it becomes yours".to_owned());
        fallback.owner.clone()
    } else {
        owner
    };
    let short: String = id.to_string().chars().take(SUFFIX).collect();
    let name = if names::check_name(&found.label.name).is_ok() {
        found.label.name
    } else {
        notes.push("its marker names no name".to_owned());
        format!("ws-{short}")
    };
    let image = if names::check_image(&found.label.image).is_ok() {
        found.label.image
    } else {
        notes.push("its marker names no image: the default one".to_owned());
        fallback.image.clone()
    };
    let names = vec![name.clone(), suffixed(&name, &short)];
    let free = |n: &String| !taken.contains(&(owner.clone(), n.clone()));
    let first = names.iter().position(free);
    let volume = volumes.iter().find(|v| v.workspace_id == id.to_string());
    let action = match (volume, first) {
        (Some(volume), _) => {
            notes.push(format!(
                "host {} still has its volume, which may be newer than this archive: adopt or remove it first \
                 (docs/operations.md, PostgreSQL lost)",
                volume.host
            ));
            RebuildAction::Conflict
        }
        (None, None) => {
            notes.push("its owner has workspaces of that name and of its substitute".to_owned());
            RebuildAction::Conflict
        }
        (None, Some(_)) => RebuildAction::Create,
    };
    let names: Vec<String> = names.into_iter().skip(first.unwrap_or(0)).collect();
    if first == Some(1) {
        notes.push(format!("{owner} has another workspace named {name}"));
    }
    if found.archive.crash_consistent {
        notes.push("its newest archive is a checkpoint".to_owned());
    }
    if action == RebuildAction::Create
        && let Some(name) = names.first()
    {
        taken.insert((owner.clone(), name.clone()));
    }
    Item {
        id,
        owner,
        names,
        image,
        archive: found.archive,
        action,
        note: notes.join("; "),
    }
}

/// `name-0b1f34bd`, cut where that is too long.
fn suffixed(name: &str, short: &str) -> String {
    let most = names::MAX_NAME - SUFFIX - 1;
    // A checked name is ASCII; of any other nothing is cut.
    let stem = name.get(..most).unwrap_or(name);
    format!("{stem}-{short}")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> WorkspaceId {
        WorkspaceId(Uuid::from_u128(n << 96))
    }

    fn found(n: u128, seconds: i64, name: &str) -> Found {
        Found {
            archive: ArchiveInfo {
                key: format!("{n}/{seconds}"),
                workspace_id: id(n).to_string(),
                create_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
                ..ArchiveInfo::default()
            },
            label: WorkspaceLabel {
                name: name.to_owned(),
                owner: "ann".to_owned(),
                image: "busybox:1".to_owned(),
            },
        }
    }

    fn known(n: u128, name: &str, deleted: bool) -> KnownWorkspace {
        KnownWorkspace {
            id: id(n),
            owner: "ann".to_owned(),
            name: name.to_owned(),
            deleted,
            gone: false,
        }
    }

    fn run(found: Vec<Found>, known: &[KnownWorkspace], include_deleted: bool) -> Vec<Item> {
        let fallback = Fallback {
            owner: "root".to_owned(),
            image: "default:1".to_owned(),
        };
        plan(found, known, &[], &fallback, include_deleted)
    }

    #[test]
    fn the_newest_archive_of_each_counts() {
        let items = run(
            vec![
                found(1, 5, "a"),
                found(2, 9, "b"),
                found(1, 7, "a"),
                found(1, 6, "a"),
            ],
            &[],
            false,
        );
        let keys: Vec<_> = items.iter().map(|i| i.archive.key.as_str()).collect();
        assert_eq!(keys, ["2/9", "1/7"]);
        for item in items {
            assert_eq!(item.action, RebuildAction::Create);
            assert_eq!((item.owner.as_str(), item.note.as_str()), ("ann", ""));
            assert_eq!(item.image, "busybox:1");
        }
    }

    #[test]
    fn rows_that_are_there_are_left_alone() {
        let all = || vec![found(1, 5, "a"), found(2, 9, "b")];
        let rows = [known(1, "renamed", false), known(2, "b", true)];
        let actions = |include_deleted| -> Vec<_> {
            let items = run(all(), &rows, include_deleted);
            items.into_iter().map(|i| (i.action, i.names)).collect()
        };
        let (b, renamed) = (vec!["b".to_owned()], vec!["renamed".to_owned()]);
        let exists = (RebuildAction::Exists, renamed);
        assert_eq!(
            actions(false),
            [(RebuildAction::Deleted, b.clone()), exists.clone()]
        );
        assert_eq!(actions(true), [(RebuildAction::Undelete, b), exists]);
    }

    #[test]
    fn what_cannot_be_undeleted_is_told() {
        let all = vec![
            found(1, 9, "a"),
            found(2, 8, "a"),
            found(3, 7, "b"),
            found(4, 6, "c"),
            found(5, 5, "a"),
        ];
        let rows = [
            known(1, "a", true),
            known(2, "a", true),
            known(9, "b", false),
            known(3, "b", true),
            KnownWorkspace {
                gone: true,
                ..known(4, "c", true)
            },
        ];
        let items = run(all, &rows, true);
        let told: Vec<_> = items.iter().map(|i| (i.action, i.note.as_str())).collect();
        use RebuildAction::{Conflict, Create, Undelete};
        assert_eq!(
            told,
            [
                (Undelete, ""),
                (Conflict, NAME_TAKEN),
                (Conflict, NAME_TAKEN),
                (Conflict, NOTHING_LEFT),
                (Create, "ann has another workspace named a"),
            ]
        );
    }

    #[test]
    fn a_name_that_is_taken_gets_a_suffix_and_is_told() {
        let rows = [known(9, "a", false), known(8, "c", true)];
        let items = run(
            vec![
                found(1, 5, "a"),
                found(2, 9, "b"),
                found(3, 7, "b"),
                found(4, 1, "c"),
            ],
            &rows,
            false,
        );
        let names: Vec<_> = items.iter().map(|i| i.names[0].as_str()).collect();
        assert_eq!(names, ["b", "b-00000003", "a-00000001", "c"]);
        assert!(items[1].note.contains("another workspace named b"));
        let long = suffixed(&"x".repeat(63), "00000001");
        assert_eq!(long.len(), 63);
        names::check_name(&long).unwrap();
    }

    #[test]
    fn a_marker_that_says_little_is_no_obstacle() {
        let mut bare = found(1, 5, "NO NAME");
        bare.label.owner = String::new();
        bare.label.image = "NO".to_owned();
        let item = run(vec![bare], &[], false).remove(0);
        assert_eq!(item.action, RebuildAction::Create);
        assert_eq!(
            (item.owner.as_str(), item.image.as_str()),
            ("root", "default:1")
        );
        assert_eq!(item.names[0], "ws-00000001");
        assert!(item.note.contains("yours"), "{}", item.note);
    }

    #[test]
    fn a_volume_that_is_still_there_stands_in_the_way() {
        let volume = UnknownVolume {
            host: "h1".to_owned(),
            workspace_id: id(1).to_string(),
            ..UnknownVolume::default()
        };
        let fallback = Fallback {
            owner: "root".to_owned(),
            image: "default:1".to_owned(),
        };
        let all = vec![found(1, 5, "a"), found(2, 4, "a")];
        let items = plan(all, &[], &[volume], &fallback, false);
        assert_eq!(items[0].action, RebuildAction::Conflict);
        assert!(items[0].note.contains("h1"), "{}", items[0].note);
        // What is not made takes no name.
        assert_eq!(items[1].names[0], "a");
    }
}
