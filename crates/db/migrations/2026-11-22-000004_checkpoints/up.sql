-- Checkpoints of running workspaces, and rows rebuilt from the bucket. Only widens: an older service reads
-- and writes everything as before, as long as no workspace has an interval (docs/operations.md, upgrading).

-- How old the newest archive of a running home may become; NULL and 0: as old as it likes.
ALTER TABLE workspaces ADD COLUMN checkpoint_interval_ms bigint CHECK (checkpoint_interval_ms >= 0);

ALTER TABLE workspaces DROP CONSTRAINT workspaces_operation_check;
ALTER TABLE workspaces ADD CONSTRAINT workspaces_operation_check
    CHECK (operation IN ('NONE', 'PROVISIONING', 'CREATE_EMPTY_ARCHIVE', 'RESTORING', 'STARTING',
                         'ARCHIVING', 'STOPPING', 'DELETING', 'CHECKPOINTING'));

ALTER TABLE workspaces DROP CONSTRAINT workspaces_error_reason_check;
ALTER TABLE workspaces ADD CONSTRAINT workspaces_error_reason_check
    CHECK (error_reason IN ('Timeout', 'ActionFailed', 'Unreachable', 'StoreUnavailable',
                            'ImagePullFailed', 'CrashLoop', 'ArchiveCorrupted', 'DataLost',
                            'ContainerWithoutVolume', 'VolumeChanged', 'CheckpointFailed'));

GRANT INSERT (checkpoint_interval_ms), UPDATE (checkpoint_interval_ms) ON workspaces TO windlass_api;

-- A rebuilt workspace is inserted with the wish to have its archive, and its owner may be unknown.
GRANT INSERT (restore_request, restore_key) ON workspaces TO windlass_api;
GRANT INSERT (name) ON users TO windlass_api;
