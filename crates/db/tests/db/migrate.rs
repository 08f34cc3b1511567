//! The migrate step: on an empty cluster, twice, and by many at once.

use windlass_db::{Bootstrap, DbErrorKind, Pool, migrate};

use crate::common::{PASSWORD, ROLES, bootstrap, cluster};

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_and_again() {
    let db = cluster().await;
    let url = db.postgres.url();
    let (url, boot) = (&url, &bootstrap());
    let runs = (0..4).map(|_| migrate(url, boot));
    let applied: Vec<_> = futures::future::join_all(runs)
        .await
        .into_iter()
        .map(|run| run.unwrap())
        .collect();
    let who_did_it = applied.iter().filter(|a| !a.is_empty()).count();
    assert_eq!(who_did_it, 1, "{applied:?}");
    assert!(migrate(url, boot).await.unwrap().is_empty());
    assert_eq!(db.one("SELECT count(*) FROM users").await, "1");
    assert_eq!(db.one("SELECT count(*) FROM tokens").await, "1");

    for role in ROLES {
        let service = role.trim_start_matches("windlass_");
        db.pool(service).ping().await.unwrap();
    }
    let wrong = Pool::new(&db.role_url("api", "wrong"), 1).unwrap();
    let error = wrong.ping().await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Unavailable);
    assert!(!error.to_string().contains("wrong"), "{error}");

    let user = db.pool("api").user_of_token(&[7; 32]).await.unwrap();
    let user = user.unwrap();
    assert!(user.admin && user.name == "admin");
    assert_eq!(db.pool("api").user_of_token(&[8; 32]).await.unwrap(), None);

    // A new token is added, a new password replaces, what is not named stays.
    let more = Bootstrap {
        role_passwords: vec![("windlass_api".to_owned(), "other".to_owned())],
        admin: Some(("admin".to_owned(), [9; 32])),
    };
    assert!(migrate(url, &more).await.unwrap().is_empty());
    let api = Pool::new(&db.role_url("api", "other"), 1).unwrap();
    for token in [[7; 32], [9; 32]] {
        assert_eq!(api.user_of_token(&token).await.unwrap(), Some(user.clone()));
    }
    assert!(
        Pool::new(&db.role_url("api", PASSWORD), 1)
            .unwrap()
            .ping()
            .await
            .is_err()
    );
    db.pool("wc").ping().await.unwrap();
    migrate(url, &Bootstrap::default()).await.unwrap();
    api.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_database_of_the_cluster() {
    let db = cluster().await;
    db.sql("CREATE DATABASE other").await;
    let other = db.postgres.url_of("other");
    let boot = Bootstrap::default();
    let first = migrate(&db.postgres.url(), &boot).await.unwrap();
    assert_eq!(migrate(&other, &boot).await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_who_is_no_superuser_suffices() {
    let db = cluster().await;
    db.sql("CREATE ROLE owner LOGIN CREATEROLE PASSWORD 'pw'")
        .await;
    db.sql("CREATE DATABASE owned OWNER owner").await;
    let url = format!("postgres://owner:pw@127.0.0.1:{}/owned", db.postgres.port());
    assert!(!migrate(&url, &bootstrap()).await.unwrap().is_empty());
    assert!(migrate(&url, &bootstrap()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_over_opens_nothing() {
    let db = crate::common::db().await;
    let api = db.pool("api");
    for (n, columns, opens) in [
        (1_u8, "expires_at = now() + interval '1 h'", true),
        (2, "expires_at = now() - interval '1 s'", false),
        (3, "revoked_at = now()", false),
    ] {
        let sha = hex(n);
        db.sql(&format!(
            "INSERT INTO tokens (user_id, sha256) SELECT id, '\\x{sha}' FROM users WHERE name = 'ann'"
        ))
        .await;
        db.sql(&format!(
            "UPDATE tokens SET {columns} WHERE sha256 = '\\x{sha}'"
        ))
        .await;
        let user = api.user_of_token(&[n; 32]).await.unwrap();
        assert_eq!(user.is_some(), opens, "{columns}");
        assert!(user.is_none_or(|u| u.name == "ann" && !u.admin));
    }
}

fn hex(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_url_is_refused_at_once_and_not_repeated() {
    for url in [
        "nonsense",
        "http://u:hunter2@x/y",
        "postgres://u:hunter2@x:port/y",
    ] {
        let migrated = migrate(url, &Bootstrap::default()).await.unwrap_err();
        for error in [migrated, Pool::new(url, 1).unwrap_err()] {
            assert_eq!(error.kind(), DbErrorKind::Internal);
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
