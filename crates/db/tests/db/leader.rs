//! Leadership: one holder, and a fence that a deposed leader's write does not pass.

use std::time::Duration;

use windlass_db::{
    Candidacy, DbErrorKind, Lease, Pool, write::wc::ControlChange, write::wc::Outcome,
};
use windlass_domain::{Epoch, Shard};

use crate::common::{TTL, db};

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_until_its_lease_is_over() {
    let db = db().await;
    let pool = db.pool("wc");
    let a = pool.try_lead("wc", "a", TTL).await.unwrap().unwrap();
    assert_eq!(a.epoch, Epoch(1));
    assert_eq!(pool.try_lead("wc", "b", TTL).await.unwrap(), None);
    assert_eq!(
        pool.renew(std::slice::from_ref(&a), TTL).await.unwrap(),
        ["wc"]
    );

    // The same holder is the dead predecessor's address: it takes over at once.
    let again = pool.try_lead("wc", "a", TTL).await.unwrap().unwrap();
    assert_eq!(again.epoch, Epoch(2));
    assert_eq!(
        pool.renew(std::slice::from_ref(&a), TTL).await.unwrap(),
        [""; 0]
    );
    assert!(!pool.release(&a).await.unwrap());

    assert!(pool.release(&again).await.unwrap());
    let row = pool.leader("wc").await.unwrap().unwrap();
    assert_eq!((row.holder.as_str(), row.epoch), ("", 2));
    let b = pool
        .try_lead("wc", "b", Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(b.epoch, Epoch(3));
    // Its lease has run out.
    let c = pool.try_lead("wc", "c", TTL).await.unwrap().unwrap();
    assert_eq!(c.epoch, Epoch(4));
    assert_eq!(pool.leader("wc").await.unwrap().unwrap().holder, "c");
    assert_eq!(pool.leader("nobody").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_candidates_one_wins() {
    let db = db().await;
    let pool = db.pool("ttl");
    let candidates = (0..20).map(|n| {
        let pool = pool.clone();
        async move { pool.try_lead("ttl", &format!("c{n}"), TTL).await.unwrap() }
    });
    let won = futures::future::join_all(candidates).await;
    assert_eq!(won.iter().flatten().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_leads_under_its_own_name_only() {
    let db = db().await;
    for service in ["observer", "wc", "ttl", "gc"] {
        let pool = db.pool(service);
        for name in ["observer", "wc", "ttl", "gc"] {
            let lease = pool.try_lead(name, "x", TTL).await.unwrap();
            assert_eq!(lease.is_some(), name == service, "{service} leads {name}");
            assert!(pool.leader(name).await.unwrap().is_some());
        }
    }
    let error = db.pool("api").try_lead("wc", "x", TTL).await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_waits_for_writes_in_flight_and_fences_later_ones() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let pool = db.pool("wc");
    let old = pool
        .try_lead("wc", "old", Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    let ws = db.record(id).await.workspace;
    let mut next = ws.control.clone();
    next.error_message = Some("written by the old leader".to_owned());

    // Somebody holds the row: the write has its fence and waits.
    let blocker = db.client().await;
    blocker
        .batch_execute("BEGIN; SELECT 1 FROM workspaces FOR UPDATE")
        .await
        .unwrap();
    let write = tokio::spawn({
        let (pool, old, change) = (
            pool.clone(),
            old.clone(),
            ControlChange::new(&ws, next.clone()),
        );
        async move { pool.store_control(&old, vec![change]).await }
    });
    db.somebody_waits_for_a_lock().await;
    let takeover = tokio::spawn({
        let pool = pool.clone();
        async move { pool.try_lead("wc", "new", TTL).await }
    });
    let two_wait =
        "SELECT (count(*) = 2)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while db.one(two_wait).await != "true" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!takeover.is_finished());

    blocker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(write.await.unwrap().unwrap(), [(id, Outcome::Applied)]);
    let new = takeover.await.unwrap().unwrap().unwrap();
    assert_eq!(new.epoch, Epoch(old.epoch.0 + 1));

    let ws = db.record(id).await.workspace;
    assert_eq!(ws.control.error_message, next.error_message);
    let change = || vec![ControlChange::new(&ws, ws.control.clone())];
    let error = pool.store_control(&old, change()).await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Fenced, "{error}");
    assert_eq!(
        pool.store_control(&new, change()).await.unwrap(),
        [(id, Outcome::Applied)]
    );
}

/// Somebody has gone in mid-transaction, and TCP has not noticed.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_ever_for_rows_that_somebody_holds() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let (pool, lease) = db.lead("wc").await;
    let ws = db.record(id).await.workspace;
    let write = || pool.store_control(&lease, vec![ControlChange::new(&ws, ws.control.clone())]);
    let gone = db.client().await;
    gone.batch_execute(
        "BEGIN; SELECT 1 FROM workspaces FOR UPDATE; SELECT 1 FROM leader FOR SHARE",
    )
    .await
    .unwrap();
    let leases = [lease.clone()];
    let all = async {
        tokio::join!(
            write(),
            pool.renew(&leases, TTL),
            pool.try_lead("wc", "other", TTL)
        )
    };
    let (write_ended, renewed, led) = tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("they wait for ever");
    for error in [
        write_ended.unwrap_err(),
        renewed.unwrap_err(),
        led.unwrap_err(),
    ] {
        assert_eq!(error.kind(), DbErrorKind::Unavailable, "{error}");
    }
    gone.batch_execute("COMMIT").await.unwrap();
    assert_eq!(write().await.unwrap(), [(id, Outcome::Applied)]);
    assert_eq!(pool.renew(&leases, TTL).await.unwrap(), ["wc"]);
}

/// So that it is not this leader for whose rows others wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_transaction_ends_by_itself() {
    let db = db().await;
    db.sql(
        "CREATE TABLE bounds (told text);
         CREATE FUNCTION tell_bounds() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
             INSERT INTO bounds SELECT concat_ws(' ', current_setting('lock_timeout'),
                 current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'));
             RETURN NEW;
         END $$;
         CREATE TRIGGER tell_bounds BEFORE UPDATE ON workspaces FOR EACH ROW EXECUTE FUNCTION tell_bounds()",
    )
    .await;
    let id = db.workspace("w", "").await;
    let (pool, lease) = db.lead("wc").await;
    let ws = db.record(id).await.workspace;
    let change = ControlChange::new(&ws, ws.control.clone());
    pool.store_control(&lease, vec![change]).await.unwrap();
    assert_eq!(db.one("SELECT told FROM bounds").await, "5s 1min 10s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_leaves_nothing_half_done() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let (pool, lease) = db.lead("wc").await;
    let ws = db.record(id).await.workspace;
    let mut next = ws.control.clone();
    next.error_message = Some("finished all the same".to_owned());
    let blocker = db.client().await;
    blocker
        .batch_execute("BEGIN; SELECT 1 FROM workspaces FOR UPDATE")
        .await
        .unwrap();
    let caller = tokio::spawn(async move {
        pool.store_control(&lease, vec![ControlChange::new(&ws, next)])
            .await
    });
    db.somebody_waits_for_a_lock().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    blocker.batch_execute("COMMIT").await.unwrap();
    while db
        .record(id)
        .await
        .workspace
        .control
        .error_message
        .is_none()
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn shard(index: u32, count: u32) -> Shard {
    Shard::new(index, count).unwrap()
}

async fn lead(pool: &Pool, of: Shard, holder: &str, ttl: Duration) -> Candidacy {
    pool.try_lead_shard("wc", of, holder, ttl).await.unwrap()
}

#[track_caller]
fn elected(candidacy: Candidacy) -> Lease {
    match candidacy {
        Candidacy::Elected(lease) => lease,
        Candidacy::Held | Candidacy::OtherShards { .. } => panic!("{candidacy:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_shard_has_a_leader_and_epochs_grow_over_all() {
    let db = db().await;
    let pool = db.pool("wc");
    let mut epochs = Vec::new();
    for (index, holder) in [(2, "a"), (0, "b"), (1, "a"), (3, "c")] {
        let lease = elected(lead(&pool, shard(index, 4), holder, TTL).await);
        assert_eq!(lease.shard, shard(index, 4));
        epochs.push(lease.epoch.0);
        let again = lead(&pool, shard(index, 4), "other", TTL).await;
        assert_eq!(again, Candidacy::Held);
    }
    assert_eq!(epochs, [1, 2, 3, 4]);
    let again = elected(lead(&pool, shard(2, 4), "a", TTL).await);
    assert_eq!(again.epoch, Epoch(5));

    let roster = pool.roster("wc", 4, "a", TTL).await.unwrap();
    let holders: Vec<_> = roster.leases.iter().map(|l| l.holder.as_str()).collect();
    assert_eq!(holders, ["b", "a", "a", "c"]);
    assert!(roster.leases.iter().all(|l| l.held));
    // Who lives is who said so lately, and divides the same number.
    pool.roster("wc", 4, "c", TTL).await.unwrap();
    pool.roster("wc", 2, "d", TTL).await.unwrap();
    db.sql("UPDATE replicas SET seen_at = now() - interval '1 h' WHERE holder = 'a'")
        .await;
    let roster = pool.roster("wc", 4, "b", TTL).await.unwrap();
    assert_eq!(roster.replicas, ["b", "c"]);
    pool.leave("wc", "c").await.unwrap();
    let roster = pool.roster("wc", 4, "b", TTL).await.unwrap();
    assert_eq!(roster.replicas, ["b"]);
    // Nobody leads for another service.
    let observer = db.pool("observer");
    let foreign = observer.try_lead_shard("wc", shard(1, 2), "x", TTL).await;
    assert_eq!(foreign.unwrap(), Candidacy::Held);
    assert!(observer.roster("wc", 2, "x", TTL).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_shards_ends_the_old_leases_or_waits_for_them() {
    let db = db().await;
    let id = db.workspace("w", "").await;
    let pool = db.pool("wc");
    let ws = db.record(id).await.workspace;
    let write = async |lease: &Lease| {
        let change = ControlChange::new(&ws, ws.control.clone());
        pool.store_control(lease, vec![change]).await
    };
    // One that knows no shards leads, as v0.1.0 does it.
    db.sql("UPDATE leader SET holder = 'v1', epoch = 7, expires_at = now() + interval '1 h' WHERE name = 'wc'")
        .await;
    let refused = Candidacy::OtherShards {
        holder: "v1".to_owned(),
        shards: 1,
    };
    assert_eq!(lead(&pool, shard(1, 2), "new", TTL).await, refused);
    assert_eq!(lead(&pool, shard(0, 2), "new", TTL).await, refused);
    db.sql("UPDATE leader SET expires_at = now() WHERE name = 'wc'")
        .await;

    // Two shards whose leaders pause until their leases are over.
    let paused = [0, 1].map(|k| shard(k, 2));
    let first = elected(lead(&pool, paused[0], "old", TTL).await);
    let second = elected(lead(&pool, paused[1], "old", TTL).await);
    assert_eq!((first.epoch, second.epoch), (Epoch(8), Epoch(9)));
    assert_eq!(db.pool("api").shards("wc").await.unwrap(), 2);
    assert_eq!(db.pool("api").shards("observer").await.unwrap(), 1);
    let refused = Candidacy::OtherShards {
        holder: "old".to_owned(),
        shards: 2,
    };
    assert_eq!(lead(&pool, shard(3, 4), "new", TTL).await, refused);
    assert!(write(&second).await.is_ok());
    db.sql("UPDATE leader SET expires_at = now() WHERE holder = 'old'")
        .await;
    // Resumed before anybody took over, it still leads.
    assert!(write(&second).await.is_ok());

    // The lease of one new shard ends all old ones, also those whose rows it does not need.
    let new = elected(lead(&pool, shard(3, 4), "new", TTL).await);
    assert_eq!(new.epoch, Epoch(10));
    for old in [&first, &second] {
        let error = write(old).await.unwrap_err();
        assert_eq!(error.kind(), DbErrorKind::Fenced, "{error}");
        assert_eq!(
            pool.renew(std::slice::from_ref(old), TTL).await.unwrap(),
            [""; 0]
        );
    }
    assert!(write(&new).await.is_ok());
    let next = elected(lead(&pool, shard(0, 4), "other", TTL).await);
    assert_eq!(next.epoch, Epoch(11));

    // The same process with another number: its predecessor is dead.
    elected(lead(&pool, shard(1, 4), "other", TTL).await);
    db.sql("UPDATE leader SET expires_at = now() WHERE holder = 'new'")
        .await;
    let whole = pool.try_lead("wc", "other", TTL).await.unwrap().unwrap();
    assert_eq!(whole.epoch, Epoch(13));
    assert!(write(&next).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_numbers_of_shards_one_wins() {
    let db = db().await;
    let pool = db.pool("observer");
    for round in 0..10 {
        db.sql("UPDATE leader SET expires_at = now(), holder = ''")
            .await;
        let candidates = (0..8_u32).map(|n| {
            let (pool, count) = (pool.clone(), if n % 2 == 0 { 2 } else { 4 });
            let of = shard(n / 2 % count, count);
            async move {
                let holder = format!("{round}-{n}");
                pool.try_lead_shard("observer", of, &holder, TTL)
                    .await
                    .unwrap()
            }
        });
        futures::future::join_all(candidates).await;
        let numbers = db
            .one("SELECT count(DISTINCT shards) FROM leader WHERE expires_at > now()")
            .await;
        assert_eq!(numbers, "1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_in_exactly_one_shard_in_sql_as_in_rust() {
    let db = db().await;
    db.sql(
        "INSERT INTO workspaces (id, owner_id, host_id, name, image, desired_state)
         SELECT gen_random_uuid(), u.id, h.id, 'w' || n, 'busybox', 'RUNNING'
         FROM users u, hosts h, generate_series(1, 200) AS n WHERE u.name = 'ann' AND h.name = 'h1'",
    )
    .await;
    let pool = db.pool("wc");
    for count in [1, 2, 3, 7, 16, 64] {
        let mut seen = std::collections::BTreeSet::new();
        for of in Shard::all(count) {
            for record in pool.living_workspaces_of(of).await.unwrap() {
                let ws = record.workspace;
                assert!(of.owns(ws.id.0), "{} is not in {of:?}", ws.id);
                assert!(seen.insert(ws.id), "{} is in two shards", ws.id);
            }
            let on_host = pool.living_workspaces_on(of).await.unwrap();
            let host = db.host("h1").await.0;
            assert_eq!(on_host.len(), if of.owns(host) { 200 } else { 0 });
        }
        assert_eq!(seen.len(), 200);
    }
}
