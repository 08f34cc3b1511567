//! CreateWorkspace.

use tonic::Code;
use uuid::Uuid;
use windlass_db::{Channel, Pool};
use windlass_proto::v1;

use crate::common::{create, delete, env, env_with, get, invalid, named, refused, try_create};

fn duration(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_as_it_was_asked_for() {
    let env = env().await;
    let asked = v1::Workspace {
        description: "two\nlines \u{1F40B}".to_owned(),
        image: "registry.example:5000/team/image:tag".to_owned(),
        desired_state: v1::DesiredState::Archived.into(),
        standby_ttl: duration(0),
        archive_ttl: duration(77),
        limits: Some(v1::Limits {
            cpu_millis: 1500,
            memory_bytes: 1 << 30,
            pids: 100,
        }),
        owner: "bob".to_owned(),
        phase: v1::Phase::Running.into(),
        ..named("demo")
    };
    let made = try_create(&env.ann, asked.clone()).await.unwrap();
    assert!(Uuid::try_parse(&made.id).is_ok());
    let expected = v1::Workspace {
        id: made.id.clone(),
        owner: "ann".to_owned(),
        host_id: env.db.sql("SELECT id FROM hosts").await[0].clone(),
        phase: v1::Phase::Pending.into(),
        operation: v1::Operation::None.into(),
        home: Some(v1::Home {
            location: v1::HomeLocation::None.into(),
            ..v1::Home::default()
        }),
        create_time: made.create_time,
        update_time: made.update_time,
        phase_change_time: made.phase_change_time,
        etag: "1".to_owned(),
        ..asked
    };
    assert!(made.create_time.is_some() && made.update_time.is_some());
    assert_eq!(made, expected);
    assert_eq!(get(&env.ann, &made.id).await.unwrap(), made);

    let plain = create(&env.ann, "plain").await;
    assert_eq!(plain.image, "windlass/demo:latest");
    assert_eq!(plain.desired_state(), v1::DesiredState::Running);
    assert_eq!((plain.standby_ttl, plain.archive_ttl), (None, None));
    assert_eq!(plain.limits, Some(v1::Limits::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_fields_are_named() {
    let env = env().await;
    for (workspace, field) in [
        (named("Demo"), "workspace.name"),
        (
            v1::Workspace {
                description: "\0".to_owned(),
                ..named("a")
            },
            "workspace.description",
        ),
        (
            v1::Workspace {
                image: "::".to_owned(),
                ..named("a")
            },
            "workspace.image",
        ),
        (
            v1::Workspace {
                desired_state: v1::DesiredState::Deleted.into(),
                ..named("a")
            },
            "workspace.desired_state",
        ),
        (
            v1::Workspace {
                archive_ttl: duration(-5),
                ..named("a")
            },
            "workspace.archive_ttl",
        ),
        (
            v1::Workspace {
                limits: Some(v1::Limits {
                    pids: 3,
                    ..Default::default()
                }),
                ..named("a")
            },
            "workspace.limits.pids",
        ),
    ] {
        invalid(try_create(&env.ann, workspace).await, field);
    }
    let nothing = v1::CreateWorkspaceRequest::default();
    invalid(env.ann.clone().create_workspace(nothing).await, "workspace");
    let request = v1::CreateWorkspaceRequest {
        workspace: Some(named("a")),
        request_id: "not a uuid".to_owned(),
    };
    invalid(
        env.ann.clone().create_workspace(request).await,
        "request_id",
    );
    assert_eq!(env.db.sql("SELECT count(*) FROM workspaces").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_the_owners_until_the_workspace_is_deleted() {
    let env = env().await;
    let first = create(&env.ann, "demo").await;
    refused(
        try_create(&env.ann, named("demo")).await,
        Code::AlreadyExists,
        "NAME_TAKEN",
    );
    create(&env.bob, "demo").await;
    delete(&env.ann, &first.id).await.unwrap();
    create(&env.ann, "demo").await;
    // At once, one of many gets it.
    let many = (0..10).map(|_| try_create(&env.ann, named("contested")));
    let made = futures::future::join_all(many).await;
    assert_eq!(made.iter().filter(|m| m.is_ok()).count(), 1);
    for lost in made.into_iter().filter(Result::is_err) {
        refused(lost, Code::AlreadyExists, "NAME_TAKEN");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_host_there_is_no_workspace() {
    let env = env().await;
    env.db.sql("UPDATE hosts SET cordoned = true").await;
    refused(
        try_create(&env.ann, named("demo")).await,
        Code::FailedPrecondition,
        "NO_HOST",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_makes_one_workspace() {
    let env = env_with(|config| config.max_workspaces_per_user = 3).await;
    let request = |name: &str, request_id: Uuid| v1::CreateWorkspaceRequest {
        workspace: Some(named(name)),
        request_id: request_id.to_string(),
    };
    let id = Uuid::new_v4();
    let many = (0..20).map(|_| {
        let mut ann = env.ann.clone();
        let request = request("demo", id);
        async move { ann.create_workspace(request).await.unwrap().into_inner() }
    });
    let made = futures::future::join_all(many).await;
    assert!(made.iter().all(|w| w.id == made[0].id), "{made:?}");
    assert_eq!(env.db.sql("SELECT count(*) FROM workspaces").await, ["1"]);
    assert_eq!(env.db.sql("SELECT action FROM audit_log").await, ["create"]);

    // Whatever is asked for now, and whatever became of it since.
    delete(&env.ann, &made[0].id).await.unwrap();
    let again = env.ann.clone().create_workspace(request("other", id)).await;
    let again = again.unwrap().into_inner();
    assert_eq!(
        (again.id, again.name.as_str()),
        (made[0].id.clone(), "demo")
    );
    assert!(again.delete_time.is_some());

    // Another user's is another request.
    let bobs = env.bob.clone().create_workspace(request("demo", id)).await;
    assert_ne!(bobs.unwrap().into_inner().id, made[0].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_followed_by_hints() {
    let env = env().await;
    let pool = Pool::new(&env.db.url(), 2).unwrap();
    let mut wc = pool.listen(Channel::Wc).await.unwrap();
    let mut observer = pool.listen(Channel::Observer).await.unwrap();
    let made = create(&env.ann, "demo").await;
    wc.next().await.unwrap();
    observer.next().await.unwrap();
    delete(&env.ann, &made.id).await.unwrap();
    wc.next().await.unwrap();
    observer.next().await.unwrap();
}
