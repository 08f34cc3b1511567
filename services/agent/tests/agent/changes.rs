//! ListChanges on a real engine: what plain docker does shows, by events alone and by lists alone.

use uuid::Uuid;
use windlass_proto::v1::{ArchiveScope, ContainerState};

use crate::follow::Follower;
use crate::harness::{DEMO, Fixture};
use crate::wire::ToEngine;

const SELDOM: [&str; 2] = ["--resync-interval", "1h"];
const OFTEN: [&str; 2] = ["--resync-interval", "300ms"];

/// What plain docker does to a workspace of its own, and that all of it shows.
async fn shows_what_docker_does(f: &Fixture) {
    let workspace = Uuid::new_v4();
    let (name, volume) = (f.container(workspace), f.volume(workspace));
    let mut follower = Follower::default();
    let state = |follower: &Follower| follower.containers.get(&name).map(|c| c.state());
    follower.until(f.client(), "an end", |_| true).await;
    assert_eq!(follower.wholes.0, 1);

    let labels = [
        format!("dev.windlass.workspace={workspace}"),
        format!("dev.windlass.prefix={}", f.prefix),
    ];
    f.docker(&["volume", "create", "--label", &labels[0], &volume])
        .await;
    follower
        .until(f.client(), "volume made", |f| {
            f.volumes.contains_key(&volume)
        })
        .await;
    assert_eq!(
        follower.volumes[&volume].workspace_id,
        workspace.to_string()
    );
    let create = ["create", "--name", &name, "--label", &labels[0]];
    let create = [&create[..], &["--label", &labels[1], DEMO]].concat();
    f.docker(&create).await;
    follower
        .until(f.client(), "created", |f| {
            state(f) == Some(ContainerState::Created)
        })
        .await;
    f.docker(&["start", &name]).await;
    follower
        .until(f.client(), "started", |f| {
            state(f) == Some(ContainerState::Running)
        })
        .await;
    let first_start = follower.containers[&name].start_time;
    assert!(first_start.is_some());
    // Long enough for the engine's words to tell the two starts apart.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    f.docker(&["restart", "-t", "0", &name]).await;
    follower
        .until(f.client(), "restarted", |f| {
            f.containers[&name].start_time != first_start
                && state(f) == Some(ContainerState::Running)
        })
        .await;
    f.docker(&["kill", &name]).await;
    follower
        .until(f.client(), "killed", |f| {
            state(f) == Some(ContainerState::Exited)
        })
        .await;
    assert_eq!(follower.containers[&name].exit_code, 137);
    assert!(follower.containers[&name].finish_time.is_some());
    f.docker(&["rm", &name]).await;
    follower
        .until(f.client(), "removed", |f| state(f).is_none())
        .await;
    f.docker(&["volume", "rm", &volume]).await;
    follower
        .until(f.client(), "volume removed", |f| {
            !f.volumes.contains_key(&volume)
        })
        .await;
    // All of it in deltas.
    assert_eq!(follower.wholes.0, 1);
    assert_eq!(follower.end.host_error, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_events_alone() {
    let metrics = windlass_service::telemetry::metrics_handle();
    // An engine that is slow to say what an event is about may be listed after all.
    let lists = || {
        let text = metrics.render();
        let mut lists: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("windlass_agent_full_lists_total{"))
            .filter(|line| !line.contains(r#"reason="retry""#))
            .map(str::to_owned)
            .collect();
        lists.sort();
        lists
    };
    let f = Fixture::with(&SELDOM).await;
    Follower::default().follow(f.client()).await;
    let before = lists();
    assert!(!before.is_empty());
    shows_what_docker_does(&f).await;
    assert_eq!(lists(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_lists_alone() {
    let mut f = Fixture::stopped(&OFTEN).await;
    let wire = ToEngine::new(&f.socket(), f.engine.host());
    wire.keep_events_back();
    f.set_flag("--docker-host", &wire.host());
    f.start().await;
    shows_what_docker_does(&f).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_the_events_is_a_list() {
    let mut f = Fixture::stopped(&SELDOM).await;
    let wire = ToEngine::new(&f.socket(), f.engine.host());
    f.set_flag("--docker-host", &wire.host());
    f.start().await;
    let (workspace, _) = f.provisioned().await;
    let volume = f.volume(workspace);
    let mut follower = Follower::default();
    follower
        .until(f.client(), "provisioned", |f| {
            f.volumes.contains_key(&volume)
        })
        .await;
    let number = follower.end.list_number;
    // Once the events run, they are cut.
    let begun = std::time::Instant::now();
    while wire.cut_events() == 0 {
        assert!(begun.elapsed().as_secs() < 30, "no events are followed");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    f.docker(&["volume", "rm", &volume]).await;
    follower
        .until(f.client(), "a list and the change", |f| {
            f.end.list_number > number && !f.volumes.contains_key(&volume)
        })
        .await;
    // And events run again.
    let number = follower.end.list_number;
    let (workspace, _) = f.provisioned().await;
    f.docker(&["volume", "rm", &f.volume(workspace)]).await;
    let volume = f.volume(workspace);
    follower
        .until(f.client(), "gone again", |f| {
            !f.volumes.contains_key(&volume) && f.jobs.contains_key(&workspace.to_string())
        })
        .await;
    assert_eq!(follower.end.list_number, number);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_told_and_comes_back() {
    let mut f = Fixture::stopped(&OFTEN).await;
    let wire = ToEngine::new(&f.socket(), f.engine.host());
    f.set_flag("--docker-host", &wire.host());
    f.start().await;
    f.provisioned().await;
    let mut follower = Follower::of(ArchiveScope::Own);
    follower
        .until(f.client(), "a volume", |f| f.volumes.len() == 1)
        .await;
    wire.hang(true);
    follower
        .until(f.client(), "that it hangs", |f| {
            !f.end.host_error.is_empty()
        })
        .await;
    let (number, position) = (follower.end.list_number, follower.end.host_position.clone());
    assert_eq!(follower.entries, 0);
    assert!(number > 0 && follower.end.list_age.unwrap().seconds > 0);
    assert_eq!(follower.end.archive_error, "");
    wire.hang(false);
    follower
        .until(f.client(), "that it is back", |f| {
            f.end.host_error.is_empty()
        })
        .await;
    // It goes on from where it was.
    assert_eq!(follower.wholes.0, 1);
    assert_eq!(follower.volumes.len(), 1);
    assert!(position.starts_with(follower.end.host_position.split(':').next().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_list_is_told_to_whoever_watches() {
    let mut f = Fixture::stopped(&SELDOM).await;
    let wire = ToEngine::new(&f.socket(), f.engine.host());
    wire.hang(true);
    f.set_flag("--docker-host", &wire.host());
    f.start().await;
    let request = windlass_proto::v1::WatchRequest {};
    let mut hints = f.client().watch(request).await.unwrap().into_inner();
    wire.hang(false);
    let listed = async {
        while hints.message().await.unwrap().expect("more hints").kind != "engine/reconnect" {}
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, listed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_container_that_is_broken_hides_nothing_and_can_be_stopped() {
    let mut f = Fixture::stopped(&OFTEN).await;
    let wire = ToEngine::new(&f.socket(), f.engine.host());
    f.set_flag("--docker-host", &wire.host());
    f.start().await;
    let (broken, home) = f.provisioned().await;
    f.started(broken, home).await;
    let id = f.containers().await[0].container_id.clone();
    let (well, home) = f.provisioned().await;
    f.started(well, home).await;
    let (broken_name, well_name) = (f.container(broken), f.container(well));
    wire.break_container(&broken_name, &id);
    // An agent that knows nothing yet looks at all of them.
    f.restart().await;
    let mut follower = Follower::default();
    follower
        .until(f.client(), "both", |f| f.containers.len() == 2)
        .await;
    assert_eq!(follower.end.host_error, "");
    let told = &follower.containers[&broken_name];
    assert_eq!(told.state(), ContainerState::Running);
    assert_eq!(told.workspace_id, broken.to_string());
    assert!(told.start_time.is_none());
    assert!(follower.containers[&well_name].start_time.is_some());

    f.stopped_container(broken).await;
    follower
        .until(f.client(), "stopped", |f| f.containers.len() == 1)
        .await;
    assert!(follower.containers.contains_key(&well_name));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changed_is_one_small_message() {
    let f = Fixture::with(&SELDOM).await;
    let (workspace, volume_id) = f.provisioned().await;
    f.started(workspace, volume_id).await;
    let (name, id) = (f.container(workspace), workspace.to_string());
    let mut follower = Follower::default();
    follower
        .until(f.client(), "running", |f| {
            let ended =
                |jobs: &Vec<windlass_proto::v1::Job>| jobs.iter().all(|job| job.end_time.is_some());
            f.containers.contains_key(&name)
                && f.volumes.len() == 1
                && f.jobs.get(&id).is_some_and(ended)
        })
        .await;
    // A list that proves it changes nothing.
    let position = follower.end.host_position.clone();
    let number = follower.end.list_number;
    follower.prove = true;
    follower.follow(f.client()).await;
    assert!(follower.end.list_number > number);
    assert_eq!((follower.entries, follower.wholes.0), (0, 1));
    assert_eq!(follower.end.host_position, position);
    let age = follower.end.list_age.unwrap();
    assert!(age.seconds < 30, "{age:?}");
    // Without proof there is none.
    let number = follower.end.list_number;
    follower.prove = false;
    follower.follow(f.client()).await;
    assert_eq!(follower.end.list_number, number);
    assert_eq!(follower.end.host_position, position);

    // A restart of the agent is a whole.
    let mut f = f;
    f.restart().await;
    follower.follow(f.client()).await;
    assert_eq!((follower.wholes.0, follower.containers.len()), (2, 1));
    assert!(follower.jobs.is_empty());
}
