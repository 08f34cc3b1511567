-- The first schema: every table and column of the design, its indexes, and one login role per service
-- that may write exactly its own columns. Who writes a column is said once, in the grants at the end.

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE CHECK (name <> '' AND length(name) <= 63),
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Only the SHA-256 of a token is kept.
CREATE TABLE tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name text NOT NULL DEFAULT '',
    sha256 bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX tokens_user_id ON tokens (user_id);

CREATE TABLE hosts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE CHECK (name <> '' AND length(name) <= 63),
    address text NOT NULL CHECK (address <> ''),
    cordoned boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Containers and volumes: when they were last observed completely, and why the last try failed.
    last_observed_at timestamptz,
    observe_error text NOT NULL DEFAULT ''
);

-- The archive store, which all hosts share: one row.
CREATE TABLE archive_store (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    last_observed_at timestamptz,
    observe_error text NOT NULL DEFAULT ''
);
INSERT INTO archive_store DEFAULT VALUES;

CREATE TABLE workspaces (
    id uuid PRIMARY KEY,
    -- What the user wants.
    owner_id uuid NOT NULL REFERENCES users (id),
    host_id uuid NOT NULL REFERENCES hosts (id),
    request_id uuid,
    name text NOT NULL CHECK (name ~ '^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'),
    description text NOT NULL DEFAULT '',
    image text NOT NULL CHECK (image <> '' AND length(image) <= 255),
    cpu_millis integer CHECK (cpu_millis > 0),
    memory_bytes bigint CHECK (memory_bytes > 0),
    pids integer CHECK (pids > 0),
    standby_ttl_ms bigint CHECK (standby_ttl_ms >= 0),
    archive_ttl_ms bigint CHECK (archive_ttl_ms >= 0),
    keep_awake_until timestamptz,
    desired_state text NOT NULL
        CHECK (desired_state IN ('ARCHIVED', 'STANDBY', 'RUNNING', 'DELETED')),
    deleted_at timestamptz,
    discard_home boolean NOT NULL DEFAULT false,
    -- The archive it is to go back to; done when restore_applied is this request.
    restore_request uuid,
    restore_key text CHECK (restore_key <> ''),
    generation bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When it was last used.
    last_access_at timestamptz,
    -- What wc decided.
    phase text NOT NULL DEFAULT 'PENDING'
        CHECK (phase IN ('PENDING', 'ARCHIVED', 'STANDBY', 'RUNNING', 'ERROR', 'DELETING', 'DELETED')),
    phase_changed_at timestamptz NOT NULL DEFAULT now(),
    operation text NOT NULL DEFAULT 'NONE'
        CHECK (operation IN ('NONE', 'PROVISIONING', 'CREATE_EMPTY_ARCHIVE', 'RESTORING', 'STARTING',
                             'ARCHIVING', 'STOPPING', 'DELETING')),
    op_id uuid,
    op_started_at timestamptz,
    archive_op_id uuid,
    archive_key text,
    error_count integer NOT NULL DEFAULT 0 CHECK (error_count >= 0),
    error_reason text
        CHECK (error_reason IN ('Timeout', 'ActionFailed', 'Unreachable', 'StoreUnavailable',
                                'ImagePullFailed', 'CrashLoop', 'ArchiveCorrupted', 'DataLost',
                                'ContainerWithoutVolume', 'VolumeChanged')),
    error_message text,
    retry_at timestamptz,
    home_ctx jsonb NOT NULL DEFAULT '{"location": "none"}',
    started_image text,
    restore_applied uuid,
    -- What observer saw.
    conditions jsonb NOT NULL DEFAULT '{}',
    observed_at timestamptz,
    -- Set by the trigger below, whoever writes.
    updated_at timestamptz NOT NULL DEFAULT now(),
    change_xid bigint NOT NULL DEFAULT 0,

    CONSTRAINT workspaces_operation_has_id CHECK ((operation = 'NONE') = (op_id IS NULL)),
    CONSTRAINT workspaces_error_has_no_operation CHECK (phase <> 'ERROR' OR operation = 'NONE'),
    CONSTRAINT workspaces_restore_names_archive
        CHECK ((restore_request IS NULL) = (restore_key IS NULL)),
    CONSTRAINT workspaces_deleted_is_desired
        CHECK ((deleted_at IS NULL) = (desired_state <> 'DELETED'))
);

-- A name is free again once its workspace is deleted.
CREATE UNIQUE INDEX workspaces_owner_name ON workspaces (owner_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX workspaces_owner_request ON workspaces (owner_id, request_id)
    WHERE request_id IS NOT NULL;
-- Keyset paging: of one owner, and of all.
CREATE INDEX workspaces_owner_created ON workspaces (owner_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX workspaces_created ON workspaces (created_at, id) WHERE deleted_at IS NULL;
-- Placement and limits count by host and by owner.
CREATE INDEX workspaces_host ON workspaces (host_id) WHERE phase <> 'DELETED';
-- ttl's two rules.
CREATE INDEX workspaces_ttl ON workspaces (phase, phase_changed_at)
    WHERE deleted_at IS NULL AND operation = 'NONE' AND phase IN ('RUNNING', 'STANDBY');
-- The loops of observer and wc: everything that is not gone for good.
CREATE INDEX workspaces_alive ON workspaces (id) WHERE phase <> 'DELETED';
-- Watching: what changed since a transaction.
CREATE INDEX workspaces_change ON workspaces (change_xid);

-- A commit order for watchers: every row carries the transaction that wrote it last. A watcher that has
-- seen everything below the oldest running transaction has missed nothing (docs/adr/006). The generation
-- (etag) also moves when ttl, which may not write it, changes what the user may have seen.
CREATE FUNCTION workspaces_touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    NEW.change_xid := pg_current_xact_id()::text::bigint;
    IF TG_OP = 'UPDATE' AND NEW.desired_state <> OLD.desired_state AND NEW.generation = OLD.generation THEN
        NEW.generation := OLD.generation + 1;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER workspaces_touch BEFORE INSERT OR UPDATE ON workspaces
    FOR EACH ROW EXECUTE FUNCTION workspaces_touch();

-- Leadership: one row per service, taken over by compare-and-set with epoch + 1.
CREATE TABLE leader (
    name text PRIMARY KEY,
    holder text NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT 'epoch'
);
INSERT INTO leader (name) VALUES ('observer'), ('wc'), ('ttl'), ('gc');

-- When gc first saw each orphan.
CREATE TABLE gc_sightings (
    name text PRIMARY KEY,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    workspace_id uuid,
    actor text NOT NULL,
    action text NOT NULL,
    detail text NOT NULL DEFAULT ''
);
CREATE INDEX audit_log_workspace ON audit_log (workspace_id, id DESC);

-- Roles belong to the cluster, so another database of it may have made them already.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['windlass_api', 'windlass_observer', 'windlass_wc', 'windlass_ttl', 'windlass_gc']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I LOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role);
    END LOOP;
END
$$;

GRANT SELECT ON users, hosts, archive_store, workspaces, leader, audit_log
    TO windlass_api, windlass_observer, windlass_wc, windlass_ttl, windlass_gc;
GRANT INSERT (workspace_id, actor, action, detail) ON audit_log
    TO windlass_api, windlass_wc, windlass_ttl, windlass_gc;
GRANT SELECT ON tokens TO windlass_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON gc_sightings TO windlass_gc;

-- Single writer per column. Never a table-level UPDATE: a column REVOKE would not take that back.
GRANT INSERT (id, owner_id, host_id, request_id, name, description, image, cpu_millis, memory_bytes, pids,
              standby_ttl_ms, archive_ttl_ms, desired_state)
    ON workspaces TO windlass_api;
GRANT UPDATE (name, description, image, cpu_millis, memory_bytes, pids, standby_ttl_ms, archive_ttl_ms,
              keep_awake_until, desired_state, deleted_at, discard_home, restore_request, restore_key, generation)
    ON workspaces TO windlass_api;
GRANT INSERT (name, address), UPDATE (address, cordoned) ON hosts TO windlass_api;

GRANT UPDATE (conditions, observed_at) ON workspaces TO windlass_observer;
GRANT UPDATE (last_observed_at, observe_error) ON hosts TO windlass_observer;
GRANT UPDATE (last_observed_at, observe_error) ON archive_store TO windlass_observer;

GRANT UPDATE (phase, phase_changed_at, operation, op_id, op_started_at, archive_op_id, archive_key,
              error_count, error_reason, error_message, retry_at, home_ctx, started_image, restore_applied)
    ON workspaces TO windlass_wc;

GRANT UPDATE (last_access_at, desired_state) ON workspaces TO windlass_ttl;

-- A service may lead under its own name only.
GRANT UPDATE (holder, epoch, expires_at) ON leader
    TO windlass_observer, windlass_wc, windlass_ttl, windlass_gc;
ALTER TABLE leader ENABLE ROW LEVEL SECURITY;
CREATE POLICY leader_read ON leader FOR SELECT USING (true);
CREATE POLICY leader_write ON leader FOR UPDATE USING (current_user = 'windlass_' || name);
