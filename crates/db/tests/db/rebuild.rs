//! Rows of workspaces that only the bucket knows.

use uuid::Uuid;
use windlass_db::write::api::{Rebuild, Rebuilt};
use windlass_domain::{DesiredState, Phase, WorkspaceId};

use crate::common::{STALE_AFTER, db};

fn rebuild(id: WorkspaceId, owner: &str, names: &[&str]) -> Rebuild {
    Rebuild {
        id,
        owner: owner.to_owned(),
        names: names.iter().map(|&n| n.to_owned()).collect(),
        image: "busybox:1".to_owned(),
        archive_key: format!("{id}/x/home.tar.zst"),
        actor: "root".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_made_once_with_its_wish_and_its_owner() {
    let db = db().await;
    let api = db.pool("api");
    let id = WorkspaceId(Uuid::new_v4());
    let new = rebuild(id, "carl", &["demo", "demo-2"]);
    let made = api
        .rebuild_workspace(new.clone(), STALE_AFTER)
        .await
        .unwrap();
    assert_eq!(made, Rebuilt::Created("demo".to_owned()));
    let made = api.rebuild_workspace(new, STALE_AFTER).await.unwrap();
    assert_eq!(made, Rebuilt::Exists);

    let ws = db.record(id).await.workspace;
    assert_eq!(
        (ws.spec.owner.as_str(), ws.spec.desired),
        ("carl", DesiredState::Archived)
    );
    assert_eq!(ws.control.phase, Phase::Pending);
    let wish = ws.open_restore().expect("a wish");
    assert_eq!(wish.key, format!("{id}/x/home.tar.zst"));
    let tokens = "SELECT count(*) FROM tokens AS t JOIN users AS u ON u.id = t.user_id WHERE u.name = 'carl'";
    assert_eq!(db.one(tokens).await, "0");
    assert_eq!(
        db.one("SELECT role FROM users WHERE name = 'carl'").await,
        "user"
    );
    let log = "SELECT string_agg(actor || ' ' || detail, '; ' ORDER BY id) FROM audit_log WHERE action = 'rebuild'";
    let expected = format!("root user carl; root demo of carl, from {id}/x/home.tar.zst");
    assert_eq!(db.one(log).await, expected);

    // A name that is taken, and a deleted row that still counts as one.
    let other = rebuild(WorkspaceId(Uuid::new_v4()), "carl", &["demo", "demo-2"]);
    let made = api.rebuild_workspace(other, STALE_AFTER).await.unwrap();
    assert_eq!(made, Rebuilt::Created("demo-2".to_owned()));
    let third = rebuild(WorkspaceId(Uuid::new_v4()), "carl", &["demo", "demo-2"]);
    assert_eq!(
        api.rebuild_workspace(third, STALE_AFTER).await.unwrap(),
        Rebuilt::NamesTaken
    );
    db.set(id, "deleted_at = now(), desired_state = 'DELETED'")
        .await;
    let again = rebuild(id, "carl", &["demo"]);
    assert_eq!(
        api.rebuild_workspace(again, STALE_AFTER).await.unwrap(),
        Rebuilt::Exists
    );
    let known = api.known_workspaces().await.unwrap();
    let this = known.iter().find(|k| k.id == id).unwrap();
    assert_eq!(
        (this.owner.as_str(), this.name.as_str(), this.deleted),
        ("carl", "demo", true)
    );
    assert!(!this.gone);
    db.set(id, "phase = 'DELETED'").await;
    let known = api.known_workspaces().await.unwrap();
    assert!(known.iter().any(|k| k.id == id && k.gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_a_host_and_makes_nothing_without() {
    let db = db().await;
    db.sql("UPDATE hosts SET cordoned = true").await;
    let new = rebuild(WorkspaceId(Uuid::new_v4()), "carl", &["demo"]);
    let made = db
        .pool("api")
        .rebuild_workspace(new, STALE_AFTER)
        .await
        .unwrap();
    assert_eq!(made, Rebuilt::NoHost);
    assert_eq!(
        db.one("SELECT count(*) FROM users WHERE name = 'carl'")
            .await,
        "0"
    );
}
