-- Fails while a workspace is at a checkpoint.
REVOKE INSERT (name) ON users FROM windlass_api;
REVOKE INSERT (restore_request, restore_key) ON workspaces FROM windlass_api;
ALTER TABLE workspaces DROP CONSTRAINT workspaces_error_reason_check;
ALTER TABLE workspaces ADD CONSTRAINT workspaces_error_reason_check
    CHECK (error_reason IN ('Timeout', 'ActionFailed', 'Unreachable', 'StoreUnavailable',
                            'ImagePullFailed', 'CrashLoop', 'ArchiveCorrupted', 'DataLost',
                            'ContainerWithoutVolume', 'VolumeChanged'));
ALTER TABLE workspaces DROP CONSTRAINT workspaces_operation_check;
ALTER TABLE workspaces ADD CONSTRAINT workspaces_operation_check
    CHECK (operation IN ('NONE', 'PROVISIONING', 'CREATE_EMPTY_ARCHIVE', 'RESTORING', 'STARTING',
                         'ARCHIVING', 'STOPPING', 'DELETING'));
ALTER TABLE workspaces DROP COLUMN checkpoint_interval_ms;
