//! One leader at a time, and one writer per column.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use windlass_integration::{Name, World, wait};
use windlass_proto::v1::{GetStatusRequest, Operation, Phase, ReconcileRequest};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_leader_leads_again_with_a_higher_epoch() {
    let mut world = World::start().await;
    let status = async |world: &World| {
        let status = world.wc().get_status(GetStatusRequest {}).await;
        status.map(|s| s.into_inner().status.unwrap())
    };
    let first = wait::until(
        "a leader",
        async || status(&world).await,
        |s| s.as_ref().is_ok_and(|s| s.leader),
    )
    .await
    .unwrap();
    world.services.kill(Name::Wc).await;
    world.services.start(Name::Wc);
    let second = wait::until(
        "a leader",
        async || status(&world).await,
        |s| s.as_ref().is_ok_and(|s| s.leader),
    )
    .await
    .unwrap();
    assert!(second.epoch > first.epoch);
    assert_eq!(second.holder, first.holder);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_lead_says_who_does() {
    let world = World::start().await;
    wait::until(
        "a leader",
        async || {
            world
                .wc()
                .reconcile(ReconcileRequest::default())
                .await
                .is_ok()
        },
        |leads| *leads,
    )
    .await;
    // Somebody else takes over, as a replica would after a partition.
    world.sql(
        "UPDATE leader SET holder = 'elsewhere', epoch = epoch + 1, expires_at = now() + interval '1 hour'
         WHERE name = 'wc'",
    );
    let refused = wait::until(
        "the deposed leader's refusal",
        async || world.wc().reconcile(ReconcileRequest::default()).await,
        |answer| {
            let error = answer.as_ref().err();
            error.is_some_and(|e| e.message().contains("elsewhere"))
        },
    )
    .await
    .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert_eq!(
        windlass_service::reason_of(&refused).as_deref(),
        Some("NOT_LEADER")
    );
    // Nothing moves without a leader, and nothing breaks.
    let id = world.create("waits").await.id;
    let request = ReconcileRequest { id: id.clone() };
    let refused = world.wc().reconcile(request).await.unwrap_err();
    assert_eq!(
        windlass_service::reason_of(&refused).as_deref(),
        Some("NOT_LEADER")
    );
    let waiting = world.get(&id).await;
    assert_eq!(
        (waiting.phase(), waiting.operation()),
        (Phase::Pending, Operation::None)
    );
    // The other one gives up: the wish is fulfilled.
    world.sql("UPDATE leader SET expires_at = now() WHERE name = 'wc'");
    world.phase(&id, Phase::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_service_writes_a_foreign_column() {
    let world = World::start().await;
    let id = world.create("mine").await.id;
    world.phase(&id, Phase::Running).await;
    let owners = [
        ("observer", "conditions observed_at"),
        (
            "wc",
            "phase phase_changed_at operation op_id op_started_at archive_op_id archive_key error_count \
             error_reason error_message retry_at home_ctx started_image restore_applied",
        ),
        (
            "ttl",
            "last_access_at desired_state trace_context trace_context_at",
        ),
        ("gc", ""),
        (
            "api",
            "name description image cpu_millis memory_bytes pids standby_ttl_ms archive_ttl_ms \
             keep_awake_until desired_state deleted_at discard_home restore_request restore_key \
             generation checkpoint_interval_ms trace_context trace_context_at",
        ),
    ];
    let columns = world
        .sql("SELECT column_name FROM information_schema.columns WHERE table_name = 'workspaces'");
    assert!(columns.lines().count() > 30, "{columns}");
    for (role, own) in owners {
        let own: Vec<&str> = own.split_whitespace().collect();
        for column in columns.lines() {
            let update = format!("UPDATE workspaces SET {column} = {column} WHERE id = '{id}'");
            let answer = world.sql_as(role, &update);
            if own.contains(&column) {
                assert!(
                    answer.is_ok(),
                    "{role} may not write its own {column}: {answer:?}"
                );
            } else {
                let refused = answer.expect_err(&format!("{role} wrote {column}"));
                assert!(refused.contains("42501"), "{role} {column}: {refused}");
            }
        }
        // Nor does any of them take another's leadership.
        let steal = "UPDATE leader SET epoch = epoch + 1 WHERE split_part(name, '/', 1) <> substr(current_user, 10)";
        match world.sql_as(role, steal) {
            Ok(updated) => assert_eq!(updated, "UPDATE 0", "{role} took a foreign leadership"),
            Err(refused) => assert!(refused.contains("42501"), "{role}: {refused}"),
        }
    }
}
