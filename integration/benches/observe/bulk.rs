//! One observation of a whole host through its agent, decoded, against the engine's own list calls.

use tonic::Code;
use windlass_integration::bench::{Goal, Plane, Report, raw::Raw, timed};
use windlass_proto::v1::{
    ArchiveScope, ListAllRequest, ListArchivesRequest, ListChangesRequest, ListVolumesRequest,
};

/// Name of the floor's row.
pub const FLOOR: &str = "engine: both lists, raw";
/// Name of the row that the seeds' headline is about.
pub const BULK: &str = "bulk: three lists by the agent";

/// The first observation after the agent started: it has to look at each container closely, once.
pub async fn first(plane: &Plane, report: &mut Report, size: usize) {
    let (took, _) = timed(three_lists(plane, size)).await;
    report.add(size, "bulk: first after the agent's start", "ms", took);
}

/// All ways in turn.
pub async fn measure(plane: &Plane, raw: &Raw, report: &mut Report, size: usize, runs: usize) {
    let (containers, volumes) = (raw.containers_path(), raw.volumes_path());
    let (mut one, mut two) = (raw.connect().await, raw.connect().await);
    let floor = || Goal::Beside(FLOOR.to_owned());
    let goal = || Goal::Within(1.3, FLOOR.to_owned());
    // Nothing of the first round counts.
    for run in 0..=runs {
        let mut add = |what: &str, took: f64, goal: Option<Goal>| {
            if run > 0 {
                let row = report.add(size, what, "ms", took);
                if let Some(goal) = goal {
                    row.goal(goal);
                }
            }
        };
        let both = async { tokio::join!(one.get(&containers), two.get(&volumes)) };
        let (took, _) = timed(both).await;
        add(FLOOR, took, None);
        let (took, _) = timed(one.get(&containers)).await;
        add("engine: containers only, raw", took, Some(floor()));
        let (took, _) = timed(three_lists(plane, size)).await;
        add(BULK, took, Some(goal()));

        let (took, whole) = timed(changes(plane, "", "", true)).await;
        let Some(whole) = whole else {
            continue; // this agent keeps no model yet
        };
        assert!(whole.entries >= 2 * size, "{} entries", whole.entries);
        add(
            "changes: the whole, proven by the engine",
            took,
            Some(goal()),
        );
        let (took, _) = timed(changes(plane, "", "", false)).await;
        add("changes: the whole, from the model", took, Some(floor()));
        let since = changes(plane, &whole.host, &whole.archives, false);
        let (took, since) = timed(since).await;
        assert_eq!(since.unwrap().entries, 0, "nothing changed");
        add("changes: since the last time", took, Some(floor()));
    }
}

async fn three_lists(plane: &Plane, size: usize) {
    let (mut a, mut b, mut c) = (plane.agent(), plane.agent(), plane.agent());
    let containers = async {
        let stream = a.list_all(ListAllRequest::default()).await.unwrap();
        let (mut stream, mut count) = (stream.into_inner(), 0);
        while let Some(chunk) = stream.message().await.unwrap() {
            count += chunk.containers.len();
        }
        count
    };
    let volumes = async {
        let stream = b.list_volumes(ListVolumesRequest::default()).await.unwrap();
        let (mut stream, mut count) = (stream.into_inner(), 0);
        while let Some(chunk) = stream.message().await.unwrap() {
            count += chunk.volumes.len();
        }
        count
    };
    let archives = async {
        // Right after its start it may not have listed the store yet.
        let Ok(stream) = c.list_archives(ListArchivesRequest::default()).await else {
            return;
        };
        let mut stream = stream.into_inner();
        while stream.message().await.unwrap().is_some() {}
    };
    let (containers, volumes, ()) = tokio::join!(containers, volumes, archives);
    assert_eq!((containers, volumes), (size, size));
}

struct Changes {
    host: String,
    archives: String,
    entries: usize,
}

/// `None` if the agent knows no ListChanges.
async fn changes(plane: &Plane, host: &str, archives: &str, prove: bool) -> Option<Changes> {
    let request = ListChangesRequest {
        host_position: host.to_owned(),
        archive_position: archives.to_owned(),
        archive_scope: ArchiveScope::All.into(),
        prove,
    };
    let mut stream = match plane.agent().list_changes(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return None,
        Err(status) => panic!("{status}"),
    };
    let (mut entries, mut last) = (0, None);
    while let Some(message) = stream.message().await.unwrap() {
        if let Some(host) = message.host {
            entries += host.containers.len() + host.volumes.len();
        }
        if let Some(archives) = message.archives {
            entries += archives.archives.len();
        }
        last = message.end.or(last);
    }
    let end = last.expect("an end");
    assert_eq!(
        (end.host_error.as_str(), end.archive_error.as_str()),
        ("", "")
    );
    Some(Changes {
        host: end.host_position,
        archives: end.archive_position,
        entries,
    })
}
