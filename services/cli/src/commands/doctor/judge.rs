//! What is wrong with what was answered, and what to do about it.

use chrono::{DateTime, TimeDelta, Utc};
use windlass_proto::v1;

use crate::output::{self, operation, phase};
use crate::values::{ago, bytes, relative, time};
use crate::wait::advice;

/// Below this much room, archives and restores soon fail.
const LITTLE_SPACE: u64 = 1 << 30;
/// The observer's idle period is 15 s.
const UNOBSERVED: TimeDelta = TimeDelta::seconds(60);
/// Nothing of a workspace takes this long without a sign of life.
const STUCK: TimeDelta = TimeDelta::minutes(15);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Ok,
    Warning,
    Wrong,
}

impl Mark {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "WRONG",
        }
    }
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) mark: Mark,
    pub(super) check: String,
    pub(super) found: String,
    pub(super) advice: String,
}

pub(super) fn finding(
    mark: Mark,
    check: &str,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding {
        mark,
        check: check.to_owned(),
        found: found.into(),
        advice: advice.into(),
    }
}

pub(super) fn observed(host: &v1::Host, now: DateTime<Utc>) -> Finding {
    let check = format!("host {}", host.name);
    let agent = "is its agent up? see .windlass/log/agent.log and observer.log";
    let seen = ago(host.observe_time.as_ref(), now);
    match time(host.observe_time.as_ref()) {
        _ if !host.observe_error.is_empty() => {
            finding(Mark::Wrong, &check, host.observe_error.clone(), agent)
        }
        None => finding(Mark::Wrong, &check, "never observed", agent),
        Some(at) if now - at > UNOBSERVED => finding(
            Mark::Wrong,
            &check,
            format!("not observed for {seen}"),
            agent,
        ),
        Some(_) if host.cordoned => finding(
            Mark::Warning,
            &check,
            "takes no new workspaces",
            format!("windlass host uncordon {}", host.name),
        ),
        Some(_) => finding(Mark::Ok, &check, format!("observed {seen} ago"), ""),
    }
}

pub(super) fn seen_by_agent(check: &str, host: &v1::GetHostResponse) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(if host.engine_error.is_empty() {
        let found = format!("Docker {}, {} jobs", host.engine_version, host.active_jobs);
        finding(Mark::Ok, check, found, "")
    } else {
        finding(
            Mark::Wrong,
            check,
            host.engine_error.clone(),
            "start the Docker engine",
        )
    });
    if !host.store_error.is_empty() {
        findings.push(finding(
            Mark::Wrong,
            check,
            format!("archive store: {}", host.store_error),
            "check the S3 endpoint, bucket and keys; archives and restores wait until then",
        ));
    }
    if host.volumes_free_bytes < LITTLE_SPACE && host.engine_error.is_empty() {
        findings.push(finding(
            Mark::Warning,
            check,
            format!("only {} free for volumes", bytes(host.volumes_free_bytes)),
            "archive workspaces or add disk",
        ));
    }
    findings
}

pub(super) fn workspaces(all: &[v1::Workspace], now: DateTime<Utc>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = all.iter().filter_map(|w| workspace(w, now)).collect();
    if findings.is_empty() {
        let found = format!("{}, none in trouble", all.len());
        findings.push(finding(Mark::Ok, "workspaces", found, ""));
    }
    findings
}

fn workspace(w: &v1::Workspace, now: DateTime<Utc>) -> Option<Finding> {
    let check = format!("workspace {}", w.name);
    if w.phase() == v1::Phase::Error {
        let found = format!("ERROR: {}: {}", w.error_reason, w.error_message);
        return Some(finding(Mark::Wrong, &check, found, advice(w)));
    }
    if !w.error_reason.is_empty() {
        let again = time(w.retry_time.as_ref()).map_or_else(
            || "is tried again".to_owned(),
            |at| format!("is tried again {}", relative(at, now)),
        );
        let found = format!("{}: {}; {again}", w.error_reason, w.error_message);
        let advice = format!("windlass ws explain {}", w.name);
        return Some(finding(Mark::Warning, &check, found, advice));
    }
    let progress = w
        .progress
        .as_ref()
        .and_then(|p| time(p.update_time.as_ref()));
    let alive = progress.max(time(w.update_time.as_ref()));
    let quiet = alive.is_some_and(|at| now - at > STUCK);
    if w.operation() != v1::Operation::None && quiet {
        let found = format!("{} without a sign of life for long", operation(w));
        let advice = format!("windlass ws explain {}", w.name);
        return Some(finding(Mark::Wrong, &check, found, advice));
    }
    let arrived = matches!(
        (w.desired_state(), w.phase()),
        (v1::DesiredState::Running, v1::Phase::Running)
            | (v1::DesiredState::Standby, v1::Phase::Standby)
            | (v1::DesiredState::Archived, v1::Phase::Archived)
            | (v1::DesiredState::Deleted, _)
    );
    if !arrived && w.operation() == v1::Operation::None && quiet {
        let found = format!(
            "{}, desired {}, and nothing is done",
            phase(w),
            output::desired(w)
        );
        let advice = format!(
            "is wc up, or does it wait for a place? windlass ws explain {}",
            w.name
        );
        return Some(finding(Mark::Wrong, &check, found, advice));
    }
    None
}

pub(super) fn service_status(
    name: &str,
    status: &v1::ServiceStatus,
    silence: TimeDelta,
    now: DateTime<Utc>,
) -> Finding {
    let log = format!("see .windlass/log/{name}.log");
    if !status.leader {
        return if status.holder.is_empty() {
            finding(Mark::Wrong, name, "nobody leads", log)
        } else {
            finding(
                Mark::Ok,
                name,
                format!("waits; {} leads", status.holder),
                "",
            )
        };
    }
    if !status.last_error.is_empty() {
        let found = format!("the last pass failed: {}", status.last_error);
        return finding(Mark::Wrong, name, found, log);
    }
    let last = time(status.last_tick_time.as_ref());
    let seen = ago(status.last_tick_time.as_ref(), now);
    match last {
        Some(at) if now - at > silence => {
            finding(Mark::Wrong, name, format!("no pass for {seen}"), log)
        }
        Some(_) => {
            let found = format!("leads (epoch {}), last pass {seen} ago", status.epoch);
            finding(Mark::Ok, name, found, "")
        }
        None => finding(
            Mark::Ok,
            name,
            format!("leads (epoch {})", status.epoch),
            "",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000, 0).unwrap()
    }

    #[test]
    fn services_lead_tick_or_are_wrong() {
        let limit = TimeDelta::minutes(1);
        let mark = |status: &v1::ServiceStatus| service_status("wc", status, limit, now()).mark;
        let mut status = v1::ServiceStatus::default();
        assert_eq!(mark(&status), Mark::Wrong);
        status.holder = "other".to_owned();
        assert_eq!(mark(&status), Mark::Ok);
        status.leader = true;
        status.last_tick_time = at(999_990);
        assert_eq!(mark(&status), Mark::Ok);
        status.last_tick_time = at(999_000);
        assert_eq!(mark(&status), Mark::Wrong);
        status.last_tick_time = at(999_990);
        status.last_error = "database away".to_owned();
        assert_eq!(mark(&status), Mark::Wrong);
    }

    #[test]
    fn hosts_have_to_be_observed() {
        let mut host = v1::Host::default();
        assert_eq!(observed(&host, now()).mark, Mark::Wrong);
        host.observe_time = at(999_995);
        assert_eq!(observed(&host, now()).mark, Mark::Ok);
        host.observe_error = "refused".to_owned();
        assert_eq!(observed(&host, now()).mark, Mark::Wrong);
    }

    #[test]
    fn workspaces_in_trouble_are_named_with_a_way_out() {
        let mut w = v1::Workspace {
            name: "demo".to_owned(),
            phase: v1::Phase::Error.into(),
            error_reason: "DataLost".to_owned(),
            ..v1::Workspace::default()
        };
        let found = workspace(&w, now()).unwrap();
        assert_eq!(found.mark, Mark::Wrong);
        assert!(
            found.advice.contains("windlass recover demo --archive"),
            "{found:?}"
        );

        w.error_reason.clear();
        w.phase = v1::Phase::Standby.into();
        w.desired_state = v1::DesiredState::Archived.into();
        w.operation = v1::Operation::Archiving.into();
        w.update_time = at(900_000);
        assert_eq!(workspace(&w, now()).unwrap().mark, Mark::Wrong);
        w.progress = Some(v1::Progress {
            update_time: at(999_990),
            ..v1::Progress::default()
        });
        assert_eq!(workspace(&w, now()), None);
    }

    #[test]
    fn an_agent_tells_of_engine_store_and_room() {
        let mut host = v1::GetHostResponse {
            volumes_free_bytes: 10 << 30,
            ..v1::GetHostResponse::default()
        };
        assert_eq!(seen_by_agent("a", &host).len(), 1);
        host.store_error = "refused".to_owned();
        host.volumes_free_bytes = 1;
        let marks: Vec<Mark> = seen_by_agent("a", &host).iter().map(|f| f.mark).collect();
        assert_eq!(marks, [Mark::Ok, Mark::Wrong, Mark::Warning]);
    }
}
