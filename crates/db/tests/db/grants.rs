//! Single writer per column, as PostgreSQL itself enforces it: every role against every column of every
//! table, whatever columns there are.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::common::{ROLES, db};

const WORKSPACE_INSERT: &str = "id owner_id host_id request_id name description image cpu_millis \
    memory_bytes pids standby_ttl_ms archive_ttl_ms checkpoint_interval_ms desired_state \
    restore_request restore_key trace_context trace_context_at";

/// What a role may do, besides reading: (role, table, privilege, columns).
const GRANTED: &[(&str, &str, &str, &str)] = &[
    ("api", "workspaces", "INSERT", WORKSPACE_INSERT),
    (
        "api",
        "workspaces",
        "UPDATE",
        "name description image cpu_millis memory_bytes pids standby_ttl_ms archive_ttl_ms \
         checkpoint_interval_ms keep_awake_until desired_state deleted_at discard_home restore_request restore_key \
         generation trace_context trace_context_at",
    ),
    ("api", "users", "INSERT", "name"),
    ("api", "hosts", "INSERT", "name address"),
    ("api", "hosts", "UPDATE", "address cordoned"),
    ("observer", "workspaces", "UPDATE", "conditions observed_at"),
    (
        "observer",
        "hosts",
        "UPDATE",
        "last_observed_at observe_error",
    ),
    (
        "observer",
        "archive_store",
        "UPDATE",
        "last_observed_at observe_error",
    ),
    (
        "wc",
        "workspaces",
        "UPDATE",
        "phase phase_changed_at operation op_id op_started_at archive_op_id archive_key error_count \
         error_reason error_message retry_at home_ctx started_image restore_applied",
    ),
    (
        "ttl",
        "workspaces",
        "UPDATE",
        "last_access_at desired_state trace_context trace_context_at",
    ),
    ("gc", "gc_sightings", "INSERT", "name first_seen last_seen"),
    ("gc", "gc_sightings", "UPDATE", "name first_seen last_seen"),
    (
        "api",
        "audit_log",
        "INSERT",
        "workspace_id actor action detail",
    ),
    (
        "wc",
        "audit_log",
        "INSERT",
        "workspace_id actor action detail",
    ),
    (
        "ttl",
        "audit_log",
        "INSERT",
        "workspace_id actor action detail",
    ),
    (
        "gc",
        "audit_log",
        "INSERT",
        "workspace_id actor action detail",
    ),
    (
        "observer",
        "leader",
        "UPDATE",
        "holder epoch expires_at shards",
    ),
    ("wc", "leader", "UPDATE", "holder epoch expires_at shards"),
    ("ttl", "leader", "UPDATE", "holder epoch expires_at shards"),
    ("gc", "leader", "UPDATE", "holder epoch expires_at shards"),
    (
        "observer",
        "replicas",
        "INSERT",
        "service holder shards seen_at",
    ),
    ("observer", "replicas", "UPDATE", "shards seen_at"),
    ("wc", "replicas", "INSERT", "service holder shards seen_at"),
    ("wc", "replicas", "UPDATE", "shards seen_at"),
];

fn granted(role: &str, table: &str, privilege: &str, column: &str) -> bool {
    GRANTED.iter().any(|(r, t, p, columns)| {
        role == format!("windlass_{r}")
            && *t == table
            && *p == privilege
            && columns.split_whitespace().any(|c| c == column)
    })
}

fn leads_shards(role: &str) -> bool {
    matches!(role, "windlass_observer" | "windlass_wc")
}

fn readable(role: &str, table: &str) -> bool {
    match table {
        "tokens" => role == "windlass_api",
        "gc_sightings" => role == "windlass_gc",
        "__diesel_schema_migrations" => false,
        _ => true,
    }
}

/// Whether it is allowed; anything but a grant that is missing is a failure of the test.
async fn allowed(client: &Client, sql: &str) -> bool {
    match client.batch_execute(sql).await {
        Ok(()) => true,
        Err(error) if error.code().is_some_and(|code| code.code() == "42501") => false,
        Err(error) => panic!("{sql}: {error:?}"),
    }
}

async fn has(client: &Client, function: &str, arguments: &str) -> bool {
    let sql = format!("SELECT {function}({arguments})");
    client.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_writes_its_own_columns_and_no_other() {
    let db = db().await;
    let columns: Vec<(String, String)> = db
        .client()
        .await
        .query(
            "SELECT table_name::text, column_name::text FROM information_schema.columns
             WHERE table_schema = 'public' ORDER BY 1, ordinal_position",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let tables: BTreeSet<&str> = columns.iter().map(|(table, _)| table.as_str()).collect();
    assert!(tables.len() >= 9 && columns.len() >= 70, "{tables:?}");

    let mut wrong = Vec::new();
    let mut check = |what: String, is: bool, should_be: bool| {
        if is != should_be {
            wrong.push(format!("{what}: allowed is {is}"));
        }
    };
    for role in ROLES {
        let client = db.client().await;
        client
            .batch_execute(&format!("SET ROLE {role}"))
            .await
            .unwrap();
        for (table, column) in &columns {
            let update = format!("UPDATE {table} SET {column} = DEFAULT WHERE false");
            let expected = granted(role, table, "UPDATE", column);
            check(
                format!("{role}: {update}"),
                allowed(&client, &update).await,
                expected,
            );
            let arguments = format!("'{role}', '{table}', '{column}', 'INSERT'");
            check(
                format!("{role}: INSERT INTO {table} ({column})"),
                has(&client, "has_column_privilege", &arguments).await,
                granted(role, table, "INSERT", column),
            );
        }
        for table in &tables {
            let all = role == "windlass_gc" && *table == "gc_sightings";
            let deletes = all || (*table == "replicas" && leads_shards(role));
            for (privilege, expected) in [("INSERT", all), ("UPDATE", all), ("DELETE", deletes)] {
                let arguments = format!("'{role}', '{table}', '{privilege}'");
                let is = has(&client, "has_table_privilege", &arguments).await;
                check(
                    format!("{role}: {privilege} on all of {table}"),
                    is,
                    expected,
                );
            }
            let delete = format!("DELETE FROM {table} WHERE false");
            check(
                format!("{role}: {delete}"),
                allowed(&client, &delete).await,
                deletes,
            );
            let truncate = format!("TRUNCATE {table} CASCADE");
            check(
                format!("{role}: {truncate}"),
                allowed(&client, &truncate).await,
                false,
            );
            let select = format!("SELECT FROM {table}");
            let may_read = has(
                &client,
                "has_table_privilege",
                &format!("'{role}', '{table}', 'SELECT'"),
            )
            .await;
            check(format!("{role}: {select}"), may_read, readable(role, table));
        }
        for ddl in [
            "CREATE TABLE t (x int)",
            "ALTER TABLE workspaces DISABLE TRIGGER ALL",
            "ALTER TABLE leader DISABLE ROW LEVEL SECURITY",
            "DROP TABLE audit_log",
        ] {
            check(format!("{role}: {ddl}"), allowed(&client, ddl).await, false);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The error that callers see, as a kind of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_another_role_is_forbidden() {
    use windlass_db::DbErrorKind;

    let db = db().await;
    let error = db
        .pool("gc")
        .register_host("h2", "http://127.0.0.1:2")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Forbidden, "{error}");
}
