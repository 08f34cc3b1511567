//! One workspace, field by field.

use chrono::{DateTime, Utc};
use comfy_table::{ContentArrangement, Table, presets};
use windlass_proto::v1;

use super::{ago_or_never, dash, doing, lines};
use crate::output::{desired, phase, short};
use crate::values::{ago, bytes, duration, relative, time};

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

#[cfg(test)]
mod tests {
    use super::*;

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
