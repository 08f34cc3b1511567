-- What changes with every write of a workspace, in a narrow table of its own. An index over such a column of
-- `workspaces` makes PostgreSQL write a new entry into every one of that table's indexes for each row written.
-- Without one, a write that changes no indexed column (what observer saw, the beginning of an operation) is
-- heap-only: it touches no index at all, as long as the row's page has room (docs/adr/021).

-- What needs this lock comes at the end. Taken then, it would wait for writers that wait for this.
SET LOCAL lock_timeout = '10s';
LOCK TABLE workspaces IN ACCESS EXCLUSIVE MODE;

CREATE TABLE workspace_changes (
    workspace_id uuid PRIMARY KEY,
    -- Copies of the row's, for the watch feed and for lists.
    change_xid bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    -- Whether deletion has marked it.
    deleted boolean NOT NULL,
    -- Whether wc looks at it in every pass, whether or not it changed: an operation is in progress, waits for a
    -- place or for its backoff, or something is not yet as it should be. In Rust the same is
    -- `windlass_domain::attention::by_columns`; a test compares the two.
    attention boolean NOT NULL
);
CREATE INDEX workspace_changes_xid ON workspace_changes (change_xid);
CREATE INDEX workspace_changes_updated ON workspace_changes (updated_at, workspace_id) WHERE NOT deleted;
CREATE INDEX workspace_changes_deleted ON workspace_changes (updated_at, workspace_id) WHERE deleted;
CREATE INDEX workspace_changes_attention ON workspace_changes (workspace_id) WHERE attention;
GRANT SELECT ON workspace_changes TO windlass_api, windlass_observer, windlass_wc, windlass_ttl, windlass_gc;

-- Once for each statement, not for each row. It runs as its owner: no service may write the table itself.
CREATE FUNCTION workspaces_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
AS $$
BEGIN
    INSERT INTO workspace_changes AS c (workspace_id, change_xid, updated_at, deleted, attention)
    SELECT id, change_xid, updated_at, deleted_at IS NOT NULL,
        phase <> 'DELETED'
            AND (operation <> 'NONE' OR phase <> desired_state OR error_count > 0 OR retry_at IS NOT NULL
                OR op_started_at IS NOT NULL
                OR (restore_request IS NOT NULL AND restore_request IS DISTINCT FROM restore_applied))
    FROM written
    ON CONFLICT (workspace_id) DO UPDATE
    SET change_xid = excluded.change_xid, updated_at = excluded.updated_at, deleted = excluded.deleted,
        attention = excluded.attention;
    RETURN NULL;
END
$$;
-- Or a role could hang it on a table of its own, and write by it.
REVOKE EXECUTE ON FUNCTION workspaces_changed() FROM PUBLIC;
CREATE TRIGGER workspaces_inserted AFTER INSERT ON workspaces
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION workspaces_changed();
CREATE TRIGGER workspaces_updated AFTER UPDATE ON workspaces
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION workspaces_changed();

INSERT INTO workspace_changes (workspace_id, change_xid, updated_at, deleted, attention)
SELECT id, change_xid, updated_at, deleted_at IS NOT NULL,
    phase <> 'DELETED'
        AND (operation <> 'NONE' OR phase <> desired_state OR error_count > 0 OR retry_at IS NOT NULL
            OR op_started_at IS NOT NULL
            OR (restore_request IS NOT NULL AND restore_request IS DISTINCT FROM restore_applied))
FROM workspaces;
ALTER TABLE workspace_changes
    ADD FOREIGN KEY (workspace_id) REFERENCES workspaces (id) ON DELETE CASCADE;
-- Rows that move spread over half-full pages, where their next version finds room beside them.
ALTER TABLE workspaces SET (fillfactor = 50);

-- The indexes that the narrow table replaces. An older service still finds what it looks for, by reading more.
DROP INDEX workspaces_change, workspaces_attention, workspaces_updated, workspaces_deleted_updated;
-- Without `operation`, which every beginning of an operation changes: few rows have one.
DROP INDEX workspaces_ttl;
CREATE INDEX workspaces_ttl ON workspaces (phase, phase_changed_at)
    WHERE deleted_at IS NULL AND phase IN ('RUNNING', 'STANDBY');

-- As before: ids of rows that are not at rest, and of rows that changed since a transaction; NULL: of those rows
-- only. An id may come twice, and rows that are gone for good may be among them.
CREATE OR REPLACE FUNCTION workspaces_attention(since bigint) RETURNS SETOF uuid
    LANGUAGE sql STABLE ROWS 50 SET enable_seqscan = off
AS $$
    SELECT workspace_id FROM workspace_changes WHERE attention
    UNION ALL
    SELECT workspace_id FROM workspace_changes WHERE change_xid >= since
$$;

ANALYZE workspace_changes;
