//! What users do: create, wish, delete, wait. Waiting is by PostgreSQL, asked every millisecond: what
//! counts is when the database says so.

use std::time::{Duration, SystemTime};

use futures::future::join_all;
use windlass_integration::{bench::Plane, clients::Workspaces, wait};
use windlass_proto::v1::{
    CreateWorkspaceRequest, DeleteWorkspaceRequest, DesiredState, UpdateWorkspaceRequest, Workspace,
};

/// Until a host takes workspaces.
pub async fn until_observed(plane: &Plane) {
    wait::until(
        "an observed host",
        async || {
            let query = "SELECT count(*) FROM hosts WHERE last_observed_at IS NOT NULL";
            plane.count(query).await
        },
        |&hosts| hosts == 1,
    )
    .await;
}

/// Creates workspaces `NAME-0`, `NAME-1`, ... at once, which are to run.
pub async fn create(plane: &Plane, name: &str, image: &str, count: usize) -> Vec<Workspace> {
    let api = plane.workspaces();
    let one = |n: usize| {
        let mut api = api.clone();
        let workspace = Workspace {
            name: format!("{name}-{n}"),
            image: image.to_owned(),
            desired_state: DesiredState::Running.into(),
            ..Workspace::default()
        };
        let request = CreateWorkspaceRequest {
            workspace: Some(workspace),
            request_id: String::new(),
        };
        async move {
            let created = api.create_workspace(request).await;
            created.expect("created").into_inner()
        }
    };
    join_all((0..count).map(one)).await
}

/// Says what a workspace should be; the row as stored.
pub async fn desire(api: &mut Workspaces, id: &str, desired: DesiredState) -> Workspace {
    let request = UpdateWorkspaceRequest {
        workspace: Some(Workspace {
            id: id.to_owned(),
            desired_state: desired.into(),
            ..Workspace::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["desired_state".to_owned()],
        }),
    };
    let updated = api.update_workspace(request).await;
    updated.expect("updated").into_inner()
}

/// Deletes workspaces with their homes, and waits until nothing is left of them.
pub async fn delete(plane: &Plane, name: &str, workspaces: &[Workspace]) {
    let mut api = plane.workspaces();
    for workspace in workspaces {
        let request = DeleteWorkspaceRequest {
            id: workspace.id.clone(),
            etag: String::new(),
            discard_home: true,
        };
        api.delete_workspace(request).await.expect("deleted");
    }
    let left = format!(
        "SELECT count(*) FROM workspaces WHERE name LIKE '{name}-%' AND phase <> 'DELETED'"
    );
    plane.count_until(&left, 0).await;
}

/// Waits until so many workspaces `NAME-*` are in a phase with nothing in progress.
pub async fn until(plane: &Plane, name: &str, phase: &str, count: usize) {
    let there = format!(
        "SELECT count(*) FROM workspaces
         WHERE name LIKE '{name}-%' AND phase = '{phase}' AND operation = 'NONE'"
    );
    let count = i64::try_from(count).unwrap();
    plane.count_until(&there, count).await;
}

/// A time of PostgreSQL or the engine, on this machine's clock.
pub fn at(seconds: i64, nanos: i32) -> SystemTime {
    let seconds = u64::try_from(seconds).expect("after 1970");
    let nanos = u32::try_from(nanos).expect("less than a second");
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// Milliseconds from one moment to another; negative if the other came first.
pub fn between(first: SystemTime, second: SystemTime) -> f64 {
    match second.duration_since(first) {
        Ok(time) => time.as_secs_f64() * 1e3,
        Err(error) => -error.duration().as_secs_f64() * 1e3,
    }
}
