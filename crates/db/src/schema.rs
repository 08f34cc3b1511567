//! The tables as diesel sees them. Private to this crate: what others know of the schema are the types
//! in `rows`, `read` and `write`. `change_xid` is left out of `workspaces`: `workspace_changes` has it.

diesel::table! {
    users (id) {
        id -> Uuid,
        name -> Text,
        role -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    tokens (id) {
        id -> Uuid,
        user_id -> Uuid,
        name -> Text,
        sha256 -> Bytea,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    hosts (id) {
        id -> Uuid,
        name -> Text,
        address -> Text,
        cordoned -> Bool,
        created_at -> Timestamptz,
        last_observed_at -> Nullable<Timestamptz>,
        observe_error -> Text,
    }
}

diesel::table! {
    archive_store (id) {
        id -> Bool,
        last_observed_at -> Nullable<Timestamptz>,
        observe_error -> Text,
    }
}

diesel::table! {
    workspaces (id) {
        id -> Uuid,
        owner_id -> Uuid,
        host_id -> Uuid,
        request_id -> Nullable<Uuid>,
        name -> Text,
        description -> Text,
        image -> Text,
        cpu_millis -> Nullable<Integer>,
        memory_bytes -> Nullable<BigInt>,
        pids -> Nullable<Integer>,
        standby_ttl_ms -> Nullable<BigInt>,
        archive_ttl_ms -> Nullable<BigInt>,
        checkpoint_interval_ms -> Nullable<BigInt>,
        keep_awake_until -> Nullable<Timestamptz>,
        desired_state -> Text,
        deleted_at -> Nullable<Timestamptz>,
        discard_home -> Bool,
        restore_request -> Nullable<Uuid>,
        restore_key -> Nullable<Text>,
        generation -> BigInt,
        created_at -> Timestamptz,
        last_access_at -> Nullable<Timestamptz>,
        phase -> Text,
        phase_changed_at -> Timestamptz,
        operation -> Text,
        op_id -> Nullable<Uuid>,
        op_started_at -> Nullable<Timestamptz>,
        archive_op_id -> Nullable<Uuid>,
        archive_key -> Nullable<Text>,
        error_count -> Integer,
        error_reason -> Nullable<Text>,
        error_message -> Nullable<Text>,
        retry_at -> Nullable<Timestamptz>,
        home_ctx -> Jsonb,
        started_image -> Nullable<Text>,
        restore_applied -> Nullable<Uuid>,
        conditions -> Jsonb,
        observed_at -> Nullable<Timestamptz>,
        updated_at -> Timestamptz,
        trace_context -> Nullable<Text>,
        trace_context_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    workspace_changes (workspace_id) {
        workspace_id -> Uuid,
        change_xid -> BigInt,
        updated_at -> Timestamptz,
        deleted -> Bool,
        attention -> Bool,
    }
}

diesel::table! {
    leader (name) {
        name -> Text,
        holder -> Text,
        epoch -> BigInt,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    gc_sightings (name) {
        name -> Text,
        first_seen -> Timestamptz,
        last_seen -> Timestamptz,
    }
}

diesel::table! {
    audit_log (id) {
        id -> BigInt,
        at -> Timestamptz,
        workspace_id -> Nullable<Uuid>,
        actor -> Text,
        action -> Text,
        detail -> Text,
    }
}

diesel::joinable!(tokens -> users (user_id));
diesel::joinable!(workspaces -> users (owner_id));
diesel::joinable!(workspaces -> hosts (host_id));
diesel::joinable!(workspace_changes -> workspaces (workspace_id));
diesel::allow_tables_to_appear_in_same_query!(
    users,
    tokens,
    hosts,
    workspaces,
    workspace_changes,
    archive_store
);
