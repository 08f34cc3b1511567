ALTER TABLE workspaces DROP COLUMN trace_context, DROP COLUMN trace_context_at;
