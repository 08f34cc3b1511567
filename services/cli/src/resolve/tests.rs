use super::*;

fn some(names: &[(&str, &str)]) -> Vec<v1::Workspace> {
    names
        .iter()
        .map(|(id, name)| v1::Workspace {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            owner: "ann".to_owned(),
            ..v1::Workspace::default()
        })
        .collect()
}

fn deleted(id: &str, name: &str, seconds: i64) -> v1::Workspace {
    let mut all = some(&[(id, name)]);
    all[0].delete_time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    all.remove(0)
}

/// What each scope makes of a text, by id; `-` where it fits nothing.
async fn meant(all: &[v1::Workspace], text: &str, scope: Scope) -> String {
    let fake = crate::fake::Fake {
        workspaces: all.to_vec(),
        ..Default::default()
    };
    let (client, _) = fake.serve().await;
    match workspace(&client, text, scope).await {
        Ok(found) => found.id,
        Err(CliError::NotFound(_)) => "-".to_owned(),
        Err(other) => panic!("{text}: {other}"),
    }
}

#[tokio::test]
async fn names_win_over_prefixes() {
    let all = some(&[
        ("0b1f34bd", "demo"),
        ("0b1f99aa", "demo-two"),
        ("77aa0000", "abcd"),
    ]);
    for (text, id) in [
        ("demo", "0b1f34bd"),
        ("demo-", "0b1f99aa"),
        ("0b1f3", "0b1f34bd"),
        ("0B1F9", "0b1f99aa"),
        ("77", "-"),
        ("nobody", "-"),
    ] {
        assert_eq!(meant(&all, text, Scope::Live).await, id, "{text}");
    }
}

#[tokio::test]
async fn a_deleted_ones_name_wins_over_a_live_ones_prefix() {
    let mut all = some(&[("0b1f34bd", "demo-two")]);
    all.push(deleted("1aaa0000", "demo", 2));
    all.push(deleted("2aaa0000", "demo", 3));
    all.push(deleted("3aaa0000", "demo", 1));
    assert_eq!(meant(&all, "demo", Scope::Deleted).await, "2aaa0000");
    assert_eq!(meant(&all, "demo", Scope::Gone).await, "2aaa0000");
    assert_eq!(meant(&all, "demo", Scope::Live).await, "0b1f34bd");
    assert_eq!(meant(&all, "demo-", Scope::Deleted).await, "0b1f34bd");
    // A live one of the name wins over them all.
    all.extend(some(&[("4aaa0000", "demo")]));
    assert_eq!(meant(&all, "demo", Scope::Deleted).await, "4aaa0000");
}

#[tokio::test]
async fn care_takes_no_prefix_of_a_name() {
    let mut all = some(&[("77aa0000", "abcd")]);
    assert_eq!(meant(&all, "abc", Scope::Live).await, "77aa0000");
    assert_eq!(meant(&all, "abc", Scope::Careful).await, "-");
    assert_eq!(meant(&all, "77aa", Scope::Careful).await, "77aa0000");
    all.push(deleted("88aa0000", "efgh", 1));
    assert_eq!(meant(&all, "efg", Scope::Gone).await, "-");
    assert_eq!(meant(&all, "88aa", Scope::Gone).await, "88aa0000");
    // No live one is meant, whatever it is called.
    assert_eq!(meant(&all, "abcd", Scope::Gone).await, "-");
    assert_eq!(meant(&all, "77aa", Scope::Gone).await, "-");
    // Either is, live ones first.
    for (text, id) in [
        ("abc", "-"),
        ("efg", "-"),
        ("abcd", "77aa0000"),
        ("efgh", "88aa0000"),
        ("77aa", "77aa0000"),
        ("88aa", "88aa0000"),
    ] {
        let found = meant(&all, text, Scope::CarefulDeleted).await;
        assert_eq!(found, id, "{text}");
    }
}

#[tokio::test]
async fn who_is_careful_says_what_there_is_and_what_would_do() {
    let mut all = some(&[("77aa0000", "demo")]);
    all.push(deleted("88aa0000", "demo-old", 1));
    let fake = crate::fake::Fake {
        workspaces: all,
        ..Default::default()
    };
    let (client, _) = fake.serve().await;
    let answer = async |text: &str, scope| {
        let error = workspace(&client, text, scope).await.unwrap_err();
        assert_eq!(error.exit_code(), 3, "{text}");
        error.to_string()
    };
    assert_eq!(
        answer("dem", Scope::CarefulDeleted).await,
        "no workspace \"dem\", deleted or not: a name has to be whole here; of an id, its first 3 \
         characters or more will do; names that begin so: 77aa0000 (demo, owner ann), \
         88aa0000 (demo-old, owner ann)"
    );
    let careful = answer("dem", Scope::Careful).await;
    assert!(careful.ends_with("begin so: 77aa0000 (demo, owner ann)"));
    let gone = answer("dem", Scope::Gone).await;
    assert!(gone.starts_with("no deleted workspace") && !gone.contains("77aa0000"));
    let unlike = answer("other", Scope::CarefulDeleted).await;
    assert_eq!(unlike, "no workspace \"other\", deleted or not");
    let short = answer("ot", Scope::CarefulDeleted).await;
    assert!(short.ends_with("will do"), "{short}");
    assert_eq!(answer("other", Scope::Live).await, "no workspace \"other\"");
}

#[test]
fn what_fits_several_lists_them() {
    let all = some(&[("0b1f34bd", "one"), ("0b1f99aa", "two")]);
    let error = by_prefix("0b1f", all, Scope::Live).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(
        text.contains("0b1f34bd (one, owner ann), 0b1f99aa (two"),
        "{text}"
    );
    // Two owners may have the same name.
    let same = some(&[("1", "demo"), ("2", "demo")]);
    assert!(exactly("demo", same, Scope::Live).is_err());
    let mut gone = vec![deleted("1", "demo", 1), deleted("2", "demo", 2)];
    gone[0].owner = "bob".to_owned();
    assert!(exactly("demo", gone, Scope::Gone).is_err());
}

#[test]
fn filters_get_nothing_but_names() {
    for bad in ["", "a\" OR name = \"b", "a b", "ä", "../x"] {
        assert!(!could_be_one(bad), "{bad}");
    }
    assert!(could_be_one("demo-1"));
}

#[test]
fn hosts_by_name_or_id() {
    let hosts = [v1::Host {
        id: "0b1f34bd-6ac7-4f15-9a8b-2b4c3c1e7a01".to_owned(),
        name: "local".to_owned(),
        ..v1::Host::default()
    }];
    assert_eq!(host(&hosts, "local").unwrap(), hosts[0].id);
    assert_eq!(host(&hosts, &hosts[0].id).unwrap(), hosts[0].id);
    assert_eq!(host(&hosts, "other").unwrap_err().exit_code(), 3);
}

#[tokio::test]
async fn every_page_is_searched_and_deleted_ones_come_last() {
    let mut all = some(&[
        ("0b1f34bd", "one"),
        ("1b1f99aa", "two"),
        ("2b1f99aa", "three"),
        ("3b1f99aa", "four"),
        ("4b1f99aa", "gone"),
    ]);
    all[4].delete_time = Some(prost_types::Timestamp::default());
    let fake = crate::fake::Fake {
        workspaces: all,
        ..Default::default()
    };
    let (client, _) = fake.serve().await;
    let id = async |text: &str, scope| workspace(&client, text, scope).await.map(|w| w.id);
    assert_eq!(id("four", Scope::Careful).await.unwrap(), "3b1f99aa");
    assert_eq!(id("3b1f", Scope::Careful).await.unwrap(), "3b1f99aa");
    assert_eq!(id("gone", Scope::Live).await.unwrap_err().exit_code(), 3);
    assert_eq!(id("gone", Scope::Deleted).await.unwrap(), "4b1f99aa");
    let unknown = "0b1f34bd-6ac7-4f15-9a8b-2b4c3c1e7a01";
    assert_eq!(id(unknown, Scope::Live).await.unwrap_err().exit_code(), 3);
    let listed = list(&client, "", "", false, Some(3)).await.unwrap();
    assert_eq!(listed.len(), 3);
}
