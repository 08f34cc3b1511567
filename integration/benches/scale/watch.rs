//! WatchWorkspaces: every user watches their own workspaces. From a commit, and its hint, to the one watcher
//! concerned, and to the last of all when everybody is.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tonic::transport::Channel;
use windlass_integration::{
    Name,
    bench::{Plane, Report, ms, rows, timed},
};
use windlass_proto::v1::{
    WatchWorkspacesRequest, workspace_service_client::WorkspaceServiceClient,
};

use crate::Fleet;

/// Watchers over one connection.
const PER_CONNECTION: usize = 20;
/// Longer than anything should take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a watcher saw: the description that a workspace has now, and when; an empty one for the end of its
/// first state.
type Seen = (String, Instant);

/// Runs it.
pub async fn measure(plane: &Plane, report: &mut Report, fleet: &Fleet, users: usize, runs: usize) {
    let users = users.min(fleet.size);
    let size = fleet.size;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let (took, tasks) = timed(async {
        let mut tasks = Vec::new();
        let mut connection = plane.anonymous(Name::Api);
        for user in 0..users {
            if user % PER_CONNECTION == 0 {
                connection = plane.anonymous(Name::Api);
            }
            let client = WorkspaceServiceClient::new(connection.clone());
            let task = watch(client, rows::token(user), sender.clone());
            tasks.push(tokio::spawn(task));
        }
        collect(&mut seen, "", users).await;
        tasks
    })
    .await;
    let all = format!("watch: {users} watchers, all with their first state");
    report.add(size, all, "ms", took);

    let statements = plane.statements(Name::Api).await;
    let cases = [(1, "the one watcher"), (users, "the last watcher of all")];
    for (count, who) in cases {
        for run in 0..runs {
            let mark = format!("round {count}/{run}");
            let ids: Vec<String> = fleet.workspaces[..count]
                .iter()
                .map(|(id, _)| id.to_string())
                .collect();
            let change =
                "UPDATE workspaces SET description = $1 WHERE id = ANY ($2::text[]::uuid[])";
            plane.sql.execute(change, &[&mark, &ids]).await.unwrap();
            let committed = Instant::now();
            plane.hint(windlass_db::Channel::Watch).await;
            let last = collect(&mut seen, &mark, count).await;
            let what = format!("watch: {count} changed -> {who}");
            report.add(size, what, "ms", ms(last - committed));
        }
    }
    let after = plane.statements(Name::Api).await;
    let each = (after.calls - statements.calls) as f64 / (2 * runs) as f64;
    let what = "watch: statements of the api for each change (and second)";
    report.add(size, what, "", each);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The moment at which the last of so many saw it.
async fn collect(seen: &mut mpsc::UnboundedReceiver<Seen>, mark: &str, count: usize) -> Instant {
    let mut left = count;
    loop {
        let next = tokio::time::timeout(PATIENCE, seen.recv()).await;
        let (what, at) = next
            .unwrap_or_else(|_| panic!("{left} of {count} watchers never saw {mark:?}"))
            .expect("watchers");
        left -= usize::from(what == mark);
        if left == 0 {
            return at;
        }
    }
}

async fn watch(
    mut client: WorkspaceServiceClient<Channel>,
    token: String,
    seen: mpsc::UnboundedSender<Seen>,
) {
    let mut request = tonic::Request::new(WatchWorkspacesRequest::default());
    let header = format!("Bearer {token}").parse().expect("a token");
    request.metadata_mut().insert("authorization", header);
    let stream = client.watch_workspaces(request).await.expect("a stream");
    let (mut stream, mut synced) = (stream.into_inner(), false);
    // The end of the stream is the end of the bench.
    while let Ok(Some(message)) = stream.message().await {
        let at = Instant::now();
        if message.synced {
            synced = true;
            let _ = seen.send((String::new(), at));
        }
        if let (true, Some(workspace)) = (synced, message.workspace) {
            let _ = seen.send((workspace.description, at));
        }
    }
}
