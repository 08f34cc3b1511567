//! Which workspaces wc has to look at. A workspace that is at rest is looked at again only when its row
//! changes; what may move without that is found by its columns here, or by `Plan::settled` being false.

use crate::{
    control::Workspace,
    phase::{Operation, Phase},
};

/// Whether the columns alone say that a workspace is not at rest. PostgreSQL says so of exactly these rows, in
/// `workspace_changes.attention`.
pub fn by_columns(ws: &Workspace) -> bool {
    let c = &ws.control;
    c.phase != Phase::Deleted
        && (c.operation != Operation::None
            || c.phase != ws.spec.desired.phase()
            || c.error_count > 0
            || c.retry_at.is_some()
            || c.op_started_at.is_some()
            || ws.open_restore().is_some())
}
