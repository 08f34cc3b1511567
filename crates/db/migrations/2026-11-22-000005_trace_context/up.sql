-- The trace of the call that set desired_state, so that what is done about it is told in that trace: a W3C
-- traceparent, absent where the call was in no sampled trace. Whoever writes desired_state writes it too: api the
-- caller's, ttl none.
ALTER TABLE workspaces
    ADD COLUMN trace_context text CHECK (length(trace_context) <= 128),
    ADD COLUMN trace_context_at timestamptz;

GRANT INSERT (trace_context, trace_context_at), UPDATE (trace_context, trace_context_at)
    ON workspaces TO windlass_api;
GRANT UPDATE (trace_context, trace_context_at) ON workspaces TO windlass_ttl;
