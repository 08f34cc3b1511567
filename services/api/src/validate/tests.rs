use windlass_domain::UserId;

use super::*;

fn caller() -> Caller {
    Caller {
        id: UserId(Uuid::from_u128(1)),
        name: "ann".to_owned(),
        admin: false,
    }
}

fn duration(seconds: i64, nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos }
}

fn created(workspace: v1::Workspace) -> Result<NewWorkspace> {
    let request = v1::CreateWorkspaceRequest {
        workspace: Some(workspace),
        request_id: String::new(),
    };
    create(request, &caller(), "default/image")
}

fn named(name: &str) -> v1::Workspace {
    v1::Workspace {
        name: name.to_owned(),
        ..v1::Workspace::default()
    }
}

#[test]
fn the_defaults_of_a_create() {
    let new = created(named("demo")).unwrap();
    assert_eq!((new.owner, new.author.name.as_str()), (caller().id, "ann"));
    assert_eq!(new.image, "default/image");
    assert_eq!(new.desired, DesiredState::Running);
    assert_eq!((new.standby_ttl, new.archive_ttl), (None, None));
    assert_eq!((new.limits, new.request_id), (Limits::default(), None));
}

#[test]
fn what_is_output_only_is_ignored_in_a_create() {
    let new = created(v1::Workspace {
        id: "nonsense".to_owned(),
        owner: "bob".to_owned(),
        etag: "zz".to_owned(),
        phase: 99,
        ..named("demo")
    });
    assert_eq!(new.unwrap().owner, caller().id);
}

#[test]
fn each_wrong_field_of_a_create_is_named() {
    let limits = |cpu_millis, memory_bytes, pids| {
        Some(v1::Limits {
            cpu_millis,
            memory_bytes,
            pids,
        })
    };
    let good = || named("demo");
    for (workspace, field) in [
        (named("Demo"), "workspace.name"),
        (named(""), "workspace.name"),
        (
            v1::Workspace {
                description: "x".repeat(1025),
                ..good()
            },
            "workspace.description",
        ),
        (
            v1::Workspace {
                image: "A B".to_owned(),
                ..good()
            },
            "workspace.image",
        ),
        (
            v1::Workspace {
                desired_state: v1::DesiredState::Deleted.into(),
                ..good()
            },
            "workspace.desired_state",
        ),
        (
            v1::Workspace {
                desired_state: 17,
                ..good()
            },
            "workspace.desired_state",
        ),
        (
            v1::Workspace {
                standby_ttl: Some(duration(0, 999_999_999)),
                ..good()
            },
            "workspace.standby_ttl",
        ),
        (
            v1::Workspace {
                archive_ttl: Some(duration(-1, 0)),
                ..good()
            },
            "workspace.archive_ttl",
        ),
        (
            v1::Workspace {
                archive_ttl: Some(duration(i64::MAX, 0)),
                ..good()
            },
            "workspace.archive_ttl",
        ),
        (
            v1::Workspace {
                checkpoint_interval: Some(duration(59, 999_999_999)),
                ..good()
            },
            "workspace.checkpoint_interval",
        ),
        (
            v1::Workspace {
                checkpoint_interval: Some(duration(30 * 86_400, 1)),
                ..good()
            },
            "workspace.checkpoint_interval",
        ),
        (
            v1::Workspace {
                limits: limits(1_024_001, 0, 0),
                ..good()
            },
            "workspace.limits.cpu_millis",
        ),
        (
            v1::Workspace {
                limits: limits(0, u64::MAX, 0),
                ..good()
            },
            "workspace.limits.memory_bytes",
        ),
        (
            v1::Workspace {
                limits: limits(0, 0, 15),
                ..good()
            },
            "workspace.limits.pids",
        ),
    ] {
        assert_eq!(created(workspace).unwrap_err().field, field);
    }
    let none = v1::CreateWorkspaceRequest::default();
    assert_eq!(create(none, &caller(), "x").unwrap_err().field, "workspace");
    let request = v1::CreateWorkspaceRequest {
        workspace: Some(good()),
        request_id: "1".to_owned(),
    };
    assert_eq!(
        create(request, &caller(), "x").unwrap_err().field,
        "request_id"
    );
}

#[test]
fn ttls_have_bounds_and_zero_is_never() {
    let of = |seconds| {
        created(v1::Workspace {
            standby_ttl: Some(duration(seconds, 0)),
            ..named("demo")
        })
        .map(|new| new.standby_ttl)
    };
    assert_eq!(of(0), Ok(Some(TimeDelta::zero())));
    assert_eq!(of(1), Ok(Some(TimeDelta::seconds(1))));
    assert_eq!(of(MAX_TTL.num_seconds()), Ok(Some(MAX_TTL)));
    assert!(of(MAX_TTL.num_seconds() + 1).is_err());
}

fn updated(workspace: v1::Workspace, paths: &[&str]) -> Result<Update> {
    let request = v1::UpdateWorkspaceRequest {
        workspace: Some(v1::Workspace {
            id: Uuid::from_u128(9).to_string(),
            ..workspace
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        }),
    };
    update(request, "default:1")
}

#[test]
fn an_empty_image_is_the_default_one_on_update_too() {
    let update = updated(named("x"), &["image"]).unwrap();
    assert_eq!(update.changes.image.as_deref(), Some("default:1"));
}

#[test]
fn only_what_the_mask_names_is_changed_and_checked() {
    let workspace = v1::Workspace {
        image: "NOT AN IMAGE".to_owned(),
        limits: Some(v1::Limits {
            cpu_millis: 500,
            pids: 1,
            ..v1::Limits::default()
        }),
        etag: "1f".to_owned(),
        ..named("new")
    };
    let update = updated(
        workspace,
        &[
            "name",
            "standby_ttl",
            "limits.cpu_millis",
            "limits.memory_bytes",
        ],
    )
    .unwrap();
    assert_eq!(update.seen, Some(31));
    let expected = Changes {
        name: Some("new".to_owned()),
        standby_ttl: Some(None),
        cpu_millis: Some(Some(500)),
        memory_bytes: Some(None),
        ..Changes::default()
    };
    assert_eq!(update.changes, expected);
}

#[test]
fn absent_limits_in_the_mask_are_the_defaults_again() {
    let changes = updated(named("x"), &["limits", "limits.pids"])
        .unwrap()
        .changes;
    let expected = Changes {
        cpu_millis: Some(None),
        memory_bytes: Some(None),
        pids: Some(None),
        ..Changes::default()
    };
    assert_eq!(changes, expected);
}

#[test]
fn each_wrong_field_of_an_update_is_named() {
    let x = || named("x");
    for (workspace, paths, field) in [
        (x(), &[][..], "update_mask"),
        (x(), &["*"], "update_mask"),
        (x(), &["name", "phase"], "update_mask"),
        (x(), &["limits.disk"], "update_mask"),
        (
            v1::Workspace {
                image: "NOT AN IMAGE".to_owned(),
                ..x()
            },
            &["image"],
            "workspace.image",
        ),
        (x(), &["desired_state"], "workspace.desired_state"),
        (named("X"), &["name"], "workspace.name"),
        (
            v1::Workspace {
                etag: "g".to_owned(),
                ..x()
            },
            &["name"],
            "workspace.etag",
        ),
    ] {
        assert_eq!(updated(workspace, paths).unwrap_err().field, field);
    }
    let long = "x".repeat(100_000);
    let error = updated(x(), &[&long]).unwrap_err();
    assert!(error.description.len() < 200);
    let none = v1::UpdateWorkspaceRequest::default();
    assert_eq!(update(none, "default:1").unwrap_err().field, "workspace");
    let no_id = v1::UpdateWorkspaceRequest {
        workspace: Some(x()),
        update_mask: None,
    };
    assert_eq!(
        update(no_id, "default:1").unwrap_err().field,
        "workspace.id"
    );
}

#[test]
fn etags() {
    assert_eq!(etag("etag", ""), Ok(None));
    assert_eq!(etag("etag", "a"), Ok(Some(10)));
    for bad in ["+a", "-a", "g", "0x1", " 1", "ffffffffffffffff"] {
        assert!(etag("etag", bad).is_err(), "{bad}");
    }
}

#[test]
fn leases() {
    assert_eq!(lease(Some(&duration(0, 0))), Ok(TimeDelta::zero()));
    assert_eq!(lease(Some(&duration(7 * 86400, 0))), Ok(MAX_LEASE));
    for bad in [
        None,
        Some(duration(-1, 0)),
        Some(duration(7 * 86400, 1)),
        Some(duration(1, -1)),
    ] {
        assert_eq!(lease(bad.as_ref()).unwrap_err().field, "duration");
    }
}

#[test]
fn hosts() {
    for good in ["a", "default", "10-0-0-5", &"a".repeat(63)] {
        assert!(host_name("name", good).is_ok(), "{good}");
    }
    for bad in ["", "A", "a.b", "a_b", "\u{e9}", &"a".repeat(64)] {
        assert!(host_name("name", bad).is_err(), "{bad}");
    }
    for (good, same) in [
        ("http://10.0.0.5:7401", "http://10.0.0.5:7401"),
        ("http://agent.example:80/", "http://agent.example:80"),
        ("http://[::1]:7401", "http://[::1]:7401"),
    ] {
        assert_eq!(agent_address("address", good).as_deref(), Ok(same));
    }
    for bad in [
        "",
        "10.0.0.5:7401",
        "http://10.0.0.5",
        "http://a:b@c:1",
        "http://c:1/x",
        "http://c:1?x",
        "http://c:0",
        "http://c:99999",
        "ftp://c:1",
        "https://c:1",
        "http://:1",
        "http://c:1\n",
    ] {
        assert!(agent_address("address", bad).is_err(), "{bad}");
    }
}
