//! Tables for people.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use windlass_proto::v1;

use super::{desired, operation, phase, short};
use crate::values::{ago, bytes, duration, relative, time};

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

/// One workspace in full.
pub fn detail(w: &v1::Workspace) -> String {
    let now = Utc::now();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("name", w.name.clone());
    row("id", w.id.clone());
    if !w.description.is_empty() {
        row("description", w.description.clone());
    }
    row("owner", w.owner.clone());
    row("image", dash(&w.image).to_owned());
    row("host", dash(&w.host_id).to_owned());
    let since = ago(w.phase_change_time.as_ref(), now);
    row("phase", format!("{} for {since}", phase(w)));
    row("desired", desired(w).to_owned());
    row("operation", doing(w));
    if !w.error_reason.is_empty() {
        let count = w.error_count;
        row(
            "error",
            format!("{} ({count} in a row): {}", w.error_reason, w.error_message),
        );
    }
    if let Some(at) = time(w.retry_time.as_ref()) {
        row("tried again", relative(at, now));
    }
    row("home", home(w, now));
    if !w.restore_key.is_empty() {
        row("to be restored", format!("archive {}", w.restore_key));
    }
    row(
        "ttl",
        format!(
            "standby after {}, archived after {}",
            ttl(w.standby_ttl.as_ref()),
            ttl(w.archive_ttl.as_ref())
        ),
    );
    if let Some(interval) = &w.checkpoint_interval {
        row("checkpoints", format!("every {}", length(interval)));
    }
    if let Some(until) = time(w.keep_awake_until.as_ref()).filter(|until| *until > now) {
        row(
            "kept awake",
            format!(
                "for {}",
                duration((until - now).to_std().unwrap_or_default())
            ),
        );
    }
    row("limits", limits(w.limits.unwrap_or_default()));
    for c in &w.conditions {
        let status = short(c.status().as_str_name(), "CONDITION_STATUS_");
        row(
            &c.r#type,
            format!("{status} {} {}", c.reason, c.message)
                .trim_end()
                .to_owned(),
        );
    }
    row(
        "created",
        format!("{} ago", ago(w.create_time.as_ref(), now)),
    );
    row("last used", ago_or_never(w.last_access_time.as_ref(), now));
    row("observed", ago_or_never(w.observe_time.as_ref(), now));
    if w.delete_time.is_some() {
        row("deleted", ago_or_never(w.delete_time.as_ref(), now));
    }
    lines(&table)
}

fn ago_or_never(at: Option<&prost_types::Timestamp>, now: DateTime<Utc>) -> String {
    match at {
        None => "never".to_owned(),
        Some(_) => format!("{} ago", ago(at, now)),
    }
}

fn home(w: &v1::Workspace, now: DateTime<Utc>) -> String {
    let home = w.home.clone().unwrap_or_default();
    let place = match home.location() {
        v1::HomeLocation::Volume => format!("volume {}", home.volume_id),
        v1::HomeLocation::Archive => format!("archive {}", w.archive_key),
        v1::HomeLocation::None | v1::HomeLocation::Unspecified => "none yet".to_owned(),
    };
    match home.last_archive_time {
        Some(_) => format!(
            "{place}, {} {}",
            match home.last_archive_crash_consistent {
                true => "checkpoint",
                false => "archived",
            },
            ago_or_never(home.last_archive_time.as_ref(), now)
        ),
        None => place,
    }
}

fn ttl(ttl: Option<&prost_types::Duration>) -> String {
    match ttl {
        None => "the default".to_owned(),
        Some(d) if d.seconds == 0 && d.nanos == 0 => "never".to_owned(),
        Some(d) => length(d),
    }
}

fn length(d: &prost_types::Duration) -> String {
    duration(std::time::Duration::from_secs(
        u64::try_from(d.seconds).unwrap_or(0),
    ))
}

fn limits(l: v1::Limits) -> String {
    let or_default = |set: bool, text: String| if set { text } else { "host default".to_owned() };
    format!(
        "cpu {}, memory {}, pids {}",
        or_default(
            l.cpu_millis != 0,
            format!("{}", f64::from(l.cpu_millis) / 1000.0)
        ),
        or_default(l.memory_bytes != 0, bytes(l.memory_bytes)),
        or_default(l.pids != 0, l.pids.to_string()),
    )
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

    #[test]
    fn details_show_the_error() {
        let text = detail(&v1::Workspace {
            phase: v1::Phase::Error.into(),
            error_reason: "ImagePullFailed".to_owned(),
            error_message: "no such image".to_owned(),
            error_count: 3,
            ..v1::Workspace::default()
        });
        assert!(
            text.contains("ImagePullFailed (3 in a row): no such image"),
            "{text}"
        );
    }

    #[test]
    fn ttls_in_words() {
        assert_eq!(ttl(None), "the default");
        assert_eq!(ttl(Some(&prost_types::Duration::default())), "never");
        assert_eq!(
            ttl(Some(&prost_types::Duration {
                seconds: 600,
                nanos: 0
            })),
            "10m"
        );
    }
}
