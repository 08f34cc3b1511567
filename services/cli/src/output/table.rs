//! Tables for people.

mod detail;

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use windlass_proto::v1;

use super::{desired, operation, phase, short};
use crate::values::{ago, bytes, relative, time};

pub use detail::detail;

/// Digits of an id that usually tell workspaces apart, and that every command takes.
const SHORT_ID: usize = 8;

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// Without the spaces that pad the last column.
fn lines(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let indent = lines
        .iter()
        .all(|line| line.is_empty() || line.starts_with(' '));
    let cut = |line: &&str| {
        if indent {
            line.get(1..).unwrap_or("").to_owned()
        } else {
            (*line).to_owned()
        }
    };
    lines.iter().map(cut).collect::<Vec<_>>().join("\n")
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `RESTORING 45%`, or `-`.
fn doing(w: &v1::Workspace) -> String {
    if w.operation() == v1::Operation::None {
        return "-".to_owned();
    }
    match &w.progress {
        Some(p) if p.total_bytes > 0 => {
            let percent = u128::from(p.done_bytes) * 100 / u128::from(p.total_bytes);
            format!("{} {}%", operation(w), percent.min(100))
        }
        _ => operation(w).to_owned(),
    }
}

/// Workspaces, one per line.
pub fn workspaces(workspaces: &[v1::Workspace], now: DateTime<Utc>) -> String {
    let mut table = table([
        "NAME",
        "ID",
        "PHASE",
        "DESIRED",
        "OPERATION",
        "OWNER",
        "AGE",
        "SAVED",
        "IMAGE",
        "ERROR",
    ]);
    for w in workspaces {
        table.add_row([
            w.name.clone(),
            w.id.chars().take(SHORT_ID).collect(),
            phase(w).to_owned(),
            desired(w).to_owned(),
            doing(w),
            w.owner.clone(),
            ago(w.create_time.as_ref(), now),
            // How old the newest archive is: what a lost host would cost.
            ago(
                w.home.as_ref().and_then(|h| h.last_archive_time.as_ref()),
                now,
            ),
            dash(&w.image).to_owned(),
            dash(&w.error_reason).to_owned(),
        ]);
    }
    lines(&table)
}

fn ago_or_never(at: Option<&prost_types::Timestamp>, now: DateTime<Utc>) -> String {
    match at {
        None => "never".to_owned(),
        Some(_) => format!("{} ago", ago(at, now)),
    }
}

/// Archives, one per line.
pub fn archives(archives: &[v1::ArchiveInfo], now: DateTime<Utc>) -> String {
    let mut table = table([
        "AGE", "SIZE", "UNPACKED", "ENTRIES", "KIND", "SHA256", "KEY",
    ]);
    for a in archives {
        table.add_row([
            ago(a.create_time.as_ref(), now),
            bytes(a.bytes),
            bytes(a.uncompressed_bytes),
            a.entries.to_string(),
            kind(a),
            a.sha256.chars().take(12).collect(),
            a.key.clone(),
        ]);
    }
    lines(&table)
}

/// How it was taken.
fn kind(a: &v1::ArchiveInfo) -> String {
    match (a.crash_consistent, a.changed_files) {
        (false, _) => "archive".to_owned(),
        (true, 0) => "checkpoint".to_owned(),
        (true, n) => format!("checkpoint ({n} changed)"),
    }
}

/// Workspaces that the bucket knows, one per line.
pub fn rebuilt(workspaces: &[v1::RebuiltWorkspace], now: DateTime<Utc>) -> String {
    let mut table = table([
        "ACTION", "NAME", "ID", "OWNER", "SAVED", "SIZE", "IMAGE", "NOTE",
    ]);
    for w in workspaces {
        let archive = w.archive.clone().unwrap_or_default();
        table.add_row([
            short(w.action().as_str_name(), "REBUILD_ACTION_").to_owned(),
            w.name.clone(),
            w.id.chars().take(SHORT_ID).collect(),
            w.owner.clone(),
            ago(archive.create_time.as_ref(), now),
            bytes(archive.bytes),
            dash(&w.image).to_owned(),
            dash(&w.note).to_owned(),
        ]);
    }
    lines(&table)
}

/// Volumes of workspaces that are in no row, one per line.
pub fn unknown_volumes(volumes: &[v1::UnknownVolume]) -> String {
    let mut table = table(["HOST", "WORKSPACE", "VOLUME ID", "NAME"]);
    for v in volumes {
        table.add_row([
            v.host.clone(),
            dash(&v.workspace_id).to_owned(),
            dash(&v.volume_id).to_owned(),
            v.name.clone(),
        ]);
    }
    lines(&table)
}

/// Hosts, one per line.
pub fn hosts(hosts: &[v1::Host], now: DateTime<Utc>) -> String {
    let mut table = table([
        "NAME",
        "ID",
        "ADDRESS",
        "TAKES NEW",
        "WORKSPACES",
        "OBSERVED",
        "ERROR",
    ]);
    for h in hosts {
        table.add_row([
            h.name.clone(),
            h.id.clone(),
            h.address.clone(),
            if h.cordoned { "no" } else { "yes" }.to_owned(),
            h.workspace_count.to_string(),
            ago_or_never(h.observe_time.as_ref(), now),
            dash(&h.observe_error).to_owned(),
        ]);
    }
    lines(&table)
}

/// What a pass of the garbage collector does.
pub fn gc_items(items: &[v1::GcItem], now: DateTime<Utc>) -> String {
    let mut table = table(["VERDICT", "WORKSPACE", "SIZE", "SEEN", "DUE", "WHY", "KEY"]);
    for i in items {
        table.add_row([
            short(i.verdict().as_str_name(), "GC_VERDICT_").to_owned(),
            i.workspace_id.chars().take(SHORT_ID).collect(),
            bytes(i.bytes),
            ago_or_never(i.first_seen_time.as_ref(), now),
            time(i.due_time.as_ref()).map_or_else(|| "-".to_owned(), |at| relative(at, now)),
            i.why.clone(),
            i.keys.first().cloned().unwrap_or_default(),
        ]);
    }
    lines(&table)
}

/// What the doctor found: one line each, and what to do under it.
pub fn findings<'a>(
    rows: impl IntoIterator<Item = (&'a str, &'a str, &'a str, &'a str)>,
) -> String {
    let mut out = String::new();
    for (mark, check, found, advice) in rows {
        out.push_str(&format!("{mark:<8} {check:<14} {found}\n"));
        if !advice.is_empty() {
            out.push_str(&format!("{:<23} -> {advice}\n", ""));
        }
    }
    out.trim_end().to_owned()
}

/// Why a workspace is as it is.
pub fn explain(e: &v1::ExplainWorkspaceResponse, now: DateTime<Utc>) -> String {
    let w = e.workspace.clone().unwrap_or_default();
    let mut out = format!("{} is {}, desired {}\n", w.name, phase(&w), desired(&w));
    out.push_str(&format!("why:     {}\n", e.why));
    let when = time(e.next_time.as_ref()).map(|at| format!(" ({})", relative(at, now)));
    out.push_str(&format!(
        "next:    {}{}\n",
        e.next,
        when.unwrap_or_default()
    ));
    if !e.last_safe_copy.is_empty() {
        out.push_str(&format!("saved:   last safe copy: {}\n", e.last_safe_copy));
    }
    for blocker in &e.blockers {
        out.push_str(&format!("blocked: {blocker}\n"));
    }
    if !e.history.is_empty() {
        let mut table = table(["WHEN", "WHO", "WHAT", "DETAIL"]);
        for h in &e.history {
            let when = ago_or_never(h.time.as_ref(), now);
            table.add_row([when, h.actor.clone(), h.action.clone(), h.detail.clone()]);
        }
        out.push('\n');
        out.push_str(&lines(&table));
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_line_each_and_no_odd_spaces() {
        let now = Utc::now();
        let w = v1::Workspace {
            id: "0b1f34bd-6ac7-4f15-9a8b-2b4c3c1e7a01".to_owned(),
            name: "demo".to_owned(),
            phase: v1::Phase::Archived.into(),
            desired_state: v1::DesiredState::Running.into(),
            operation: v1::Operation::Restoring.into(),
            progress: Some(v1::Progress {
                done_bytes: 1,
                total_bytes: 3,
                ..v1::Progress::default()
            }),
            ..v1::Workspace::default()
        };
        let text = workspaces(&[w], now);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("NAME"), "{text}");
        assert!(
            lines[1].starts_with("demo") && lines[1].contains("RESTORING 33%"),
            "{text}"
        );
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{text}");
    }
}
