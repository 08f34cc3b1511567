//! Names of objects: the only place that builds or takes apart a key.
//!
//! ```text
//! {prefix}{workspace_id}/{archive_op_id}/home.tar.zst        data
//! {prefix}{workspace_id}/{archive_op_id}/home.tar.zst.meta   commit marker
//! {prefix}{workspace_id}/restored/{op_id}                    restore marker
//! ```
//! Ids are written in lower case with hyphens; any other spelling is not one of our keys.

use uuid::Uuid;

/// File name of an archive's data.
pub const DATA_NAME: &str = "home.tar.zst";
/// What the commit marker's key has behind the data's key.
pub const MARKER_SUFFIX: &str = ".meta";
const RESTORED: &str = "restored";

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedKey {
    /// An archive's data.
    Data {
        /// Whose home.
        workspace_id: Uuid,
        /// Which archive.
        op_id: Uuid,
    },
    /// An archive's commit marker.
    Marker {
        /// Whose home.
        workspace_id: Uuid,
        /// Which archive.
        op_id: Uuid,
    },
    /// The marker of a completed restore.
    RestoreMarker {
        /// Whose home.
        workspace_id: Uuid,
        /// The restore's operation, which is also the new volume's id.
        op_id: Uuid,
    },
    /// Under the prefix, but not one of ours.
    Other {
        /// The workspace, where at least the folder names one.
        workspace_id: Option<Uuid>,
    },
}

/// The folder of everything that belongs to a workspace, with a trailing slash.
pub fn workspace_prefix(prefix: &str, workspace_id: Uuid) -> String {
    format!("{prefix}{workspace_id}/")
}

/// Key of an archive's data; this is what `archive_key` means everywhere.
pub fn data_key(prefix: &str, workspace_id: Uuid, archive_op_id: Uuid) -> String {
    format!("{prefix}{workspace_id}/{archive_op_id}/{DATA_NAME}")
}

/// Key of the commit marker that belongs to an archive's data key.
pub fn marker_key(data_key: &str) -> String {
    format!("{data_key}{MARKER_SUFFIX}")
}

/// Key of the marker which says that restore `op_id` completed.
pub fn restore_marker_key(prefix: &str, workspace_id: Uuid, op_id: Uuid) -> String {
    format!("{prefix}{workspace_id}/{RESTORED}/{op_id}")
}

/// Folder of a workspace's restore markers, with a trailing slash.
pub fn restore_marker_prefix(prefix: &str, workspace_id: Uuid) -> String {
    format!("{prefix}{workspace_id}/{RESTORED}/")
}

/// Takes a key apart; `None` where it does not begin with `prefix`.
pub fn parse_key(prefix: &str, key: &str) -> Option<ParsedKey> {
    let rest = key.strip_prefix(prefix)?;
    let mut parts = rest.splitn(4, '/');
    let (first, second, third, fourth) = (parts.next(), parts.next(), parts.next(), parts.next());
    let workspace_id = first.and_then(strict_uuid);
    let other = ParsedKey::Other { workspace_id };
    let (Some(workspace_id), Some(second)) = (workspace_id, second) else {
        return Some(other);
    };
    Some(match (second, third, fourth) {
        (RESTORED, Some(id), None) => match strict_uuid(id) {
            Some(op_id) => ParsedKey::RestoreMarker {
                workspace_id,
                op_id,
            },
            None => other,
        },
        (id, Some(name), None) => match (strict_uuid(id), name.strip_prefix(DATA_NAME)) {
            (Some(op_id), Some("")) => ParsedKey::Data {
                workspace_id,
                op_id,
            },
            (Some(op_id), Some(MARKER_SUFFIX)) => ParsedKey::Marker {
                workspace_id,
                op_id,
            },
            _ => other,
        },
        _ => other,
    })
}

fn strict_uuid(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().to_string() == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_parse_back() {
        let (ws, op) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for prefix in ["", "x/", "a/b-", "restored/"] {
            let data = data_key(prefix, ws, op);
            let expected = ParsedKey::Data {
                workspace_id: ws,
                op_id: op,
            };
            assert_eq!(parse_key(prefix, &data), Some(expected));
            let expected = ParsedKey::Marker {
                workspace_id: ws,
                op_id: op,
            };
            assert_eq!(parse_key(prefix, &marker_key(&data)), Some(expected));
            let expected = ParsedKey::RestoreMarker {
                workspace_id: ws,
                op_id: op,
            };
            let restored = restore_marker_key(prefix, ws, op);
            assert_eq!(parse_key(prefix, &restored), Some(expected));
            assert!(restored.starts_with(&restore_marker_prefix(prefix, ws)));
            assert!(data.starts_with(&workspace_prefix(prefix, ws)));
        }
    }

    #[test]
    fn foreign_keys_are_other() {
        let ws = Uuid::from_u128(0xabcdef);
        assert_eq!(parse_key("x/", "y/whatever"), None);
        for key in [
            String::new(),
            "readme".into(),
            format!("{ws}"),
            format!("{}/{ws}/home.tar.zst", ws.simple()),
            ws.to_string().to_uppercase() + "/x/y",
            format!("{ws}/{ws}/home.tar.zst.meta.meta"),
            format!("{ws}/{ws}/home.tar.zst/more"),
            format!("{ws}/restored/not-an-id"),
            format!("{ws}/restored/{ws}/more"),
        ] {
            assert!(
                matches!(parse_key("", &key), Some(ParsedKey::Other { .. })),
                "{key}"
            );
        }
    }
}
