//! ListWorkspaces: pages, filters, orders.

use std::collections::BTreeSet;

use windlass_proto::v1;

use crate::common::{Workspaces, create, delete, describe, env, invalid};

async fn page(client: &Workspaces, request: v1::ListWorkspacesRequest) -> (Vec<String>, String) {
    let page = client.clone().list_workspaces(request).await.unwrap();
    let page = page.into_inner();
    let names = page.workspaces.into_iter().map(|w| w.name).collect();
    (names, page.next_page_token)
}

async fn all(client: &Workspaces, request: v1::ListWorkspacesRequest) -> Vec<String> {
    let mut names = Vec::new();
    let mut request = request;
    loop {
        let (more, token) = page(client, request.clone()).await;
        if let Ok(size @ 1..) = usize::try_from(request.page_size) {
            assert!(more.len() == size || token.is_empty());
        }
        names.extend(more);
        if token.is_empty() {
            return names;
        }
        request.page_token = token;
    }
}

fn ordered(order_by: &str, page_size: i32) -> v1::ListWorkspacesRequest {
    v1::ListWorkspacesRequest {
        order_by: order_by.to_owned(),
        page_size,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_is_paged_through_without_gap_or_repetition() {
    let env = env().await;
    for n in 0..23 {
        // Names in another order than creation.
        create(&env.ann, &format!("w{:02}", n * 7 % 23)).await;
    }
    create(&env.bob, "bobs").await;
    env.db
        .sql(
            "UPDATE workspaces SET last_access_at = now() - length(name) * interval '1 s'
             WHERE name < 'w05'",
        )
        .await;
    let by_creation: Vec<String> = (0..23).map(|n| format!("w{:02}", n * 7 % 23)).collect();
    let mut by_name = by_creation.clone();
    by_name.sort();
    for (order, expected) in [
        ("", Some(&by_creation)),
        ("create_time", Some(&by_creation)),
        ("name", Some(&by_name)),
        ("update_time", None),
        ("last_access_time", None),
    ] {
        let whole = all(&env.ann, ordered(order, 0)).await;
        if let Some(expected) = expected {
            assert_eq!(&whole, expected);
        }
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), 23);
        for size in [1, 7, 22, 23] {
            assert_eq!(
                all(&env.ann, ordered(order, size)).await,
                whole,
                "{order} {size}"
            );
        }
        let mut reversed = whole;
        reversed.reverse();
        let order = if order.is_empty() {
            "create_time"
        } else {
            order
        };
        let descending = all(&env.ann, ordered(&format!("{order} desc"), 5)).await;
        assert_eq!(descending, reversed, "{order}");
    }
    // Never used comes first.
    let used = all(&env.ann, ordered("last_access_time desc", 0)).await;
    assert!(used[..5].iter().all(|n| n.as_str() < "w05"), "{used:?}");
    assert_eq!(all(&env.root, ordered("", 0)).await.len(), 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_between_pages_moves_nothing_else() {
    let env = env().await;
    let mut ids = Vec::new();
    for n in 0..12 {
        ids.push(create(&env.ann, &format!("w{n:02}")).await.id);
    }
    let (first, token) = page(&env.ann, ordered("", 4)).await;
    assert_eq!(first, ["w00", "w01", "w02", "w03"]);
    delete(&env.ann, &ids[3]).await.unwrap(); // the one the token stands on
    delete(&env.ann, &ids[0]).await.unwrap();
    delete(&env.ann, &ids[5]).await.unwrap();
    describe(&env.ann, &ids[4], "changed").await;
    create(&env.ann, "w12").await;
    let mut rest = ordered("", 4);
    rest.page_token = token;
    let rest = all(&env.ann, rest).await;
    assert_eq!(
        rest,
        ["w04", "w06", "w07", "w08", "w09", "w10", "w11", "w12"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select() {
    let env = env().await;
    let host = env.db.sql("SELECT id FROM hosts").await[0].clone();
    for name in ["alpha", "alpine", "beta", "gone"] {
        let made = create(&env.ann, name).await;
        match name {
            "alpine" => env.db.set(&made.id, "phase = 'RUNNING'").await,
            "beta" => env.db.set(&made.id, "desired_state = 'ARCHIVED'").await,
            "gone" => drop(delete(&env.ann, &made.id).await.unwrap()),
            _ => {}
        }
    }
    create(&env.bob, "alps").await;
    let list = async |client: &Workspaces, filter: &str| {
        let request = v1::ListWorkspacesRequest {
            filter: filter.to_owned(),
            order_by: "name".to_owned(),
            page_size: 1,
            ..Default::default()
        };
        all(client, request).await
    };
    for (filter, expected) in [
        ("", &["alpha", "alpine", "beta"][..]),
        (r#"name = "alpha""#, &["alpha"]),
        (r#"name = "al*""#, &["alpha", "alpine"]),
        (r#"name != "alpha""#, &["alpine", "beta"]),
        (r#"name = "%""#, &[]),
        (r#"name = "_*""#, &[]),
        ("phase = RUNNING", &["alpine"]),
        ("phase != PHASE_RUNNING AND name = \"a*\"", &["alpha"]),
        ("desired_state = ARCHIVED", &["beta"]),
        (r#"owner = "ann""#, &["alpha", "alpine", "beta"]),
        (r#"owner = "bob""#, &[]),
        (&format!("host_id = \"{host}\" AND name = beta"), &["beta"]),
        (&format!("host_id != \"{host}\""), &[]),
    ] {
        assert_eq!(list(&env.ann, filter).await, expected, "{filter}");
    }
    assert_eq!(list(&env.root, r#"owner = "bob""#).await, ["alps"]);
    assert_eq!(
        list(&env.root, "name = \"al*\"").await,
        ["alpha", "alpine", "alps"]
    );
    let deleted = v1::ListWorkspacesRequest {
        show_deleted: true,
        filter: "desired_state = DELETED".to_owned(),
        ..Default::default()
    };
    assert_eq!(all(&env.ann, deleted).await, ["gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_refuses() {
    let env = env().await;
    for n in 0..3 {
        create(&env.ann, &format!("w{n}")).await;
    }
    let request = |change: &dyn Fn(&mut v1::ListWorkspacesRequest)| {
        let mut request = ordered("name", 2);
        change(&mut request);
        let mut ann = env.ann.clone();
        async move { ann.list_workspaces(request).await }
    };
    invalid(request(&|r| r.page_size = -1).await, "page_size");
    invalid(request(&|r| r.filter = "name".to_owned()).await, "filter");
    invalid(request(&|r| r.filter = "x".repeat(2000)).await, "filter");
    invalid(
        request(&|r| r.filter = "phase = NONE".to_owned()).await,
        "filter",
    );
    invalid(request(&|r| r.order_by = "id".to_owned()).await, "order_by");
    invalid(
        request(&|r| r.page_token = "nonsense".to_owned()).await,
        "page_token",
    );
    let (_, token) = page(&env.ann, ordered("name", 2)).await;
    let with_token = |change: &dyn Fn(&mut v1::ListWorkspacesRequest)| {
        request(&|r| {
            r.page_token.clone_from(&token);
            change(r);
        })
    };
    for change in [
        &(|r: &mut v1::ListWorkspacesRequest| r.order_by = "name desc".to_owned())
            as &dyn Fn(&mut v1::ListWorkspacesRequest),
        &|r| r.filter = "name = \"w*\"".to_owned(),
        &|r| r.show_deleted = true,
    ] {
        invalid(with_token(change).await, "page_token");
    }
    // Another page size is fine, and more than 1,000 is 1,000.
    let rest = with_token(&|r| r.page_size = i32::MAX).await.unwrap();
    assert_eq!(rest.into_inner().workspaces.len(), 1);
}
