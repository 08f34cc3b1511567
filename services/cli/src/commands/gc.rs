//! `windlass gc`.

use std::time::Duration;

use chrono::Utc;
use serde_json::json;
use windlass_proto::v1;

use crate::args::{GcCommand, Output};
use crate::client::{Client, request_within};
use crate::error::CliError;
use crate::output::{self, json, outln, table};

/// A pass over a large bucket takes its time.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Runs one of them.
pub async fn run(client: &Client, command: GcCommand, output: Output) -> Result<(), CliError> {
    let mut gc = client.gc()?;
    let failed =
        |status| CliError::from_status(&status, "garbage collector", &client.settings().gc);
    match command {
        GcCommand::Plan => {
            let answer = gc.plan(request_within(v1::PlanRequest {}, TIMEOUT)).await;
            let pass = answer
                .map_err(failed)?
                .into_inner()
                .pass
                .unwrap_or_default();
            match output {
                Output::Json => output::print_json(&json::gc_pass(&pass)),
                Output::Id => {
                    let due = due(&pass);
                    due.iter().for_each(|item| print_keys(&item.keys));
                    left_out(due.len(), pass.due_count, "due groups");
                }
                Output::Table => print_pass(&pass),
            }
        }
        GcCommand::Run { override_breaker } => {
            let message = v1::GcServiceRunOnceRequest { override_breaker };
            let answer = gc.run_once(request_within(message, TIMEOUT)).await;
            let done = answer.map_err(failed)?.into_inner();
            let pass = done.pass.unwrap_or_default();
            // An earlier version names all keys and does not count them.
            let named = done.deleted_keys.len();
            let deleted = done.deleted_count.max(named as u32);
            match output {
                Output::Json => output::print_json(&json!({
                    "pass": json::gc_pass(&pass),
                    "deleted_keys": done.deleted_keys,
                    "deleted_count": deleted,
                    "aborted_uploads": done.aborted_uploads,
                })),
                Output::Id => {
                    print_keys(&done.deleted_keys);
                    left_out(named, deleted, "deleted keys");
                }
                Output::Table => {
                    print_pass(&pass);
                    outln!(
                        "deleted {deleted} objects, aborted {} stale uploads",
                        done.aborted_uploads
                    );
                }
            }
            if !pass.refusal.is_empty() {
                let message = format!("the pass deleted nothing: {}", pass.refusal);
                return Err(CliError::Failed(message));
            }
        }
    }
    Ok(())
}

fn due(pass: &v1::GcPass) -> Vec<&v1::GcItem> {
    let items = pass.items.iter();
    let due = items.filter(|i| i.verdict() == v1::GcVerdict::Delete);
    due.collect()
}

/// An answer names 5,000 at most.
fn left_out(named: usize, all: u32, what: &str) {
    if named < all as usize {
        eprintln!("windlass: only {named} of {all} {what} are named");
    }
}

fn print_keys(keys: &[String]) {
    keys.iter().for_each(|key| outln!("{key}"));
}

fn print_pass(pass: &v1::GcPass) {
    if !pass.items.is_empty() {
        outln!("{}", table::gc_items(&pass.items, Utc::now()));
    }
    outln!(
        "{} groups in the store, {} of them protected",
        pass.total_count,
        pass.protected_count
    );
    let orphans = pass.total_count.saturating_sub(pass.protected_count);
    left_out(pass.items.len(), orphans, "orphans");
    if !pass.refusal.is_empty() {
        outln!("a pass deletes nothing: {}", pass.refusal);
    }
}
