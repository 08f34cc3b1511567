-- Lists and watches that stay fast with 100,000 workspaces, and leases for shards.

-- Pages over all workspaces in every order of ListWorkspaces, and by state. Names compare by byte, so that
-- one index serves =, a prefix and the order, whatever the database's locale.
CREATE INDEX workspaces_name ON workspaces (name COLLATE "C", id) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_updated ON workspaces (updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_used
    ON workspaces (COALESCE(last_access_at, '1970-01-01 00:00:00+00'::timestamptz), id) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_states ON workspaces (phase, desired_state) WHERE deleted_at IS NULL;
-- The first state of one user's watch.
CREATE INDEX workspaces_owner_alive ON workspaces (owner_id, id) WHERE phase <> 'DELETED';
-- The same for deleted ones, which a list shows on request. No write of a living row touches these.
CREATE INDEX workspaces_deleted_created ON workspaces (created_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted_name ON workspaces (name COLLATE "C", id) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted_updated ON workspaces (updated_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted_used
    ON workspaces (COALESCE(last_access_at, '1970-01-01 00:00:00+00'::timestamptz), id)
    WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted_states ON workspaces (phase, desired_state) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted_owner ON workspaces (owner_id, created_at, id) WHERE deleted_at IS NOT NULL;
CREATE INDEX workspaces_deleted_host ON workspaces (host_id) WHERE deleted_at IS NOT NULL;

-- One lease row per shard. Shard 0 keeps the row of its service, so that it and a replica that knows no
-- shards exclude each other. `shards` is the number of shards under which the row was last taken.
ALTER TABLE leader ADD COLUMN shards integer NOT NULL DEFAULT 1 CHECK (shards BETWEEN 1 AND 64);
INSERT INTO leader (name)
    SELECT service || '/' || shard
    FROM unnest(ARRAY['observer', 'wc']) AS service, generate_series(1, 63) AS shard;
GRANT UPDATE (shards) ON leader TO windlass_observer, windlass_wc, windlass_ttl, windlass_gc;
ALTER POLICY leader_write ON leader USING (current_user = 'windlass_' || split_part(name, '/', 1));

-- The replicas that live, among whom the shards are divided.
CREATE TABLE replicas (
    service text NOT NULL,
    holder text NOT NULL,
    shards integer NOT NULL CHECK (shards BETWEEN 1 AND 64),
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (service, holder)
);
GRANT SELECT ON replicas TO windlass_api, windlass_observer, windlass_wc, windlass_ttl, windlass_gc;
GRANT INSERT (service, holder, shards, seen_at), UPDATE (shards, seen_at), DELETE
    ON replicas TO windlass_observer, windlass_wc;
ALTER TABLE replicas ENABLE ROW LEVEL SECURITY;
CREATE POLICY replicas_read ON replicas FOR SELECT USING (true);
CREATE POLICY replicas_write ON replicas USING (current_user = 'windlass_' || service);
