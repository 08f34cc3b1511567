DROP TABLE replicas;
ALTER POLICY leader_write ON leader USING (current_user = 'windlass_' || name);
DELETE FROM leader WHERE name LIKE '%/%';
ALTER TABLE leader DROP COLUMN shards;
DROP INDEX workspaces_name, workspaces_updated, workspaces_used, workspaces_states, workspaces_owner_alive,
    workspaces_deleted_created, workspaces_deleted_name, workspaces_deleted_updated, workspaces_deleted_used,
    workspaces_deleted_states, workspaces_deleted_owner, workspaces_deleted_host;
