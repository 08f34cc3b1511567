-- Rows that wc looks at in every pass, whether or not they changed: an operation is in progress, waits for a
-- place or for its backoff, or something is not yet as it should be. In Rust the same is
-- `windlass_domain::attention::by_columns`; a test compares the two.
CREATE INDEX workspaces_attention ON workspaces (id)
    WHERE phase <> 'DELETED'
        AND (operation <> 'NONE' OR phase <> desired_state OR error_count > 0 OR retry_at IS NOT NULL
            OR op_started_at IS NOT NULL
            OR (restore_request IS NOT NULL AND restore_request IS DISTINCT FROM restore_applied));

-- Ids of those rows, and of the rows that changed since a transaction; NULL: of those rows only. An id may
-- come twice, and rows that are gone for good may be among them. PostgreSQL cannot estimate how few rows
-- differ in two columns, and would rather read the whole table: within this function it may not.
CREATE FUNCTION workspaces_attention(since bigint) RETURNS SETOF uuid
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
