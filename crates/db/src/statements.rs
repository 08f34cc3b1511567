//! Counts statements, so that tests can assert that a pass costs the same however many rows there are.

use std::sync::atomic::{AtomicU64, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};

static STATEMENTS: AtomicU64 = AtomicU64::new(0);

/// Statements that this process began, `BEGIN` and `COMMIT` included.
pub fn statements() -> u64 {
    STATEMENTS.load(Ordering::Relaxed)
}

/// Counts the statements of all connections made from now on.
pub(crate) fn count() {
    // It fails only if a panic holds the lock: then nothing is counted, and nothing else is wrong.
    let _ = set_default_instrumentation(counter);
}

fn counter() -> Option<Box<dyn Instrumentation>> {
    Some(Box::new(|event: InstrumentationEvent<'_>| {
        if matches!(event, InstrumentationEvent::StartQuery { .. }) {
            STATEMENTS.fetch_add(1, Ordering::Relaxed);
        }
    }))
}
