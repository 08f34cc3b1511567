//! What is in the archive store, as groups of objects that live and die together.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tonic::{Request, Status};
use uuid::Uuid;
use windlass_coordinator::AgentClient;
use windlass_domain::{
    OpId, WorkspaceId,
    gc::{Group, GroupKind},
};
use windlass_proto::{
    convert,
    v1::{ArchiveInfo, ListArchivesRequest, LooseObject, RestoreInfo},
};

/// How long a full list may take: a thousand keys are one request, and every new marker is one more.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Lists the store anew, through one agent.
pub async fn groups(mut agent: AgentClient) -> Result<Vec<Group>, Status> {
    let mut request = Request::new(ListArchivesRequest {
        refresh: true,
        include_loose: true,
        ..ListArchivesRequest::default()
    });
    request.set_timeout(PATIENCE);
    let mut stream = agent.list_archives(request).await?.into_inner();
    let mut groups = Vec::new();
    while let Some(chunk) = stream.message().await? {
        groups.extend(chunk.archives.into_iter().map(complete));
        groups.extend(chunk.restores.into_iter().map(restore));
        groups.extend(chunk.loose.into_iter().map(loose));
    }
    Ok(groups)
}

fn time(at: Option<prost_types::Timestamp>) -> DateTime<Utc> {
    // What tells no time was written just now: the youngest is kept longest.
    at.and_then(|t| convert::time("", &t).ok())
        .unwrap_or_else(Utc::now)
}

fn complete(archive: ArchiveInfo) -> Group {
    Group {
        keys: vec![archive.key.clone(), format!("{}.meta", archive.key)],
        name: archive.key,
        workspace: archive.workspace_id.parse().ok(),
        op: archive.archive_op_id.parse().ok(),
        kind: match archive.crash_consistent {
            true => GroupKind::Checkpoint,
            false => GroupKind::CompleteArchive,
        },
        bytes: archive.bytes,
        written_at: time(archive.create_time),
    }
}

fn restore(restore: RestoreInfo) -> Group {
    Group {
        keys: vec![restore.key.clone()],
        name: restore.key,
        workspace: restore.workspace_id.parse().ok(),
        op: restore.op_id.parse().ok(),
        kind: GroupKind::RestoreMarker,
        bytes: 0,
        written_at: Utc::now(),
    }
}

fn loose(object: LooseObject) -> Group {
    let (workspace, op) = ids(&object.key);
    Group {
        keys: vec![object.key.clone()],
        name: object.key,
        workspace,
        op,
        kind: GroupKind::Loose,
        bytes: object.bytes,
        written_at: time(object.update_time),
    }
}

/// The workspace and the operation in a key: the first two path segments that are UUIDs.
fn ids(key: &str) -> (Option<WorkspaceId>, Option<OpId>) {
    let mut ids = key.split('/').filter_map(|s| Uuid::try_parse(s).ok());
    (ids.next().map(WorkspaceId), ids.next().map(OpId))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_behind_any_prefix() {
        let (ws, op) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for key in [
            format!("{ws}/{op}/home.tar.zst"),
            format!("team/x/{ws}/{op}/home.tar.zst"),
            format!("{ws}/restored/{op}"),
        ] {
            assert_eq!(ids(&key), (Some(WorkspaceId(ws)), Some(OpId(op))), "{key}");
        }
        assert_eq!(ids("strange"), (None, None));
    }
}
