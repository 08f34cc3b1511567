DROP INDEX workspaces_ttl;
CREATE INDEX workspaces_ttl ON workspaces (phase, phase_changed_at)
    WHERE deleted_at IS NULL AND operation = 'NONE' AND phase IN ('RUNNING', 'STANDBY');
CREATE INDEX workspaces_change ON workspaces (change_xid);
CREATE INDEX workspaces_updated ON workspaces (updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_deleted_updated ON workspaces (updated_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_attention ON workspaces (id)
    WHERE phase <> 'DELETED'
        AND (operation <> 'NONE' OR phase <> desired_state OR error_count > 0 OR retry_at IS NOT NULL
            OR op_started_at IS NOT NULL
            OR (restore_request IS NOT NULL AND restore_request IS DISTINCT FROM restore_applied));
CREATE OR REPLACE FUNCTION workspaces_attention(since bigint) RETURNS SETOF uuid
    LANGUAGE sql STABLE ROWS 50 SET enable_seqscan = off
AS $$
    SELECT id FROM workspaces
    WHERE phase <> 'DELETED'
        AND (operation <> 'NONE' OR phase <> desired_state OR error_count > 0 OR retry_at IS NOT NULL
            OR op_started_at IS NOT NULL
            OR (restore_request IS NOT NULL AND restore_request IS DISTINCT FROM restore_applied))
    UNION ALL
    SELECT id FROM workspaces WHERE change_xid >= since
$$;
ALTER TABLE workspaces RESET (fillfactor);
DROP TRIGGER workspaces_updated ON workspaces;
DROP TRIGGER workspaces_inserted ON workspaces;
DROP FUNCTION workspaces_changed();
DROP TABLE workspace_changes;
