//! The engine's JSON about containers, read into the agent's own types.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, HealthStatusEnum, PortMap};
use chrono::{DateTime, Utc};
use windlass_domain::conditions::Health;

use super::containers::{ContainerInfo, Listed, State, is_alive};
use super::{label, lists, uuid_label};

pub(super) fn name_of(container: &lists::Container) -> Option<String> {
    let names = container.names.as_deref()?;
    // A linked container has further names with more slashes.
    let own = |name: &&String| !name.trim_start_matches('/').contains('/');
    let name = names.iter().find(own)?;
    Some(name.trim_start_matches('/').to_owned())
}

pub(super) fn listed(container: lists::Container) -> Option<Listed> {
    let name = name_of(&container)?;
    let labels = container.labels;
    let state = container.state.as_deref().and_then(state_in);
    let status = container.status.unwrap_or_default();
    Some(Listed {
        labelled: labels.contains_key(label::WORKSPACE),
        prefix: labels.get(label::PREFIX).cloned(),
        age: age_in(&status),
        id: container.id?,
        name,
        image: container.image.unwrap_or_default(),
        state,
        health: health_in(&status).filter(|_| state == Some(State::Running)),
        exit_code: exit_code_in(&status).filter(|_| !is_alive(state)),
        workspace: uuid_label(&labels, label::WORKSPACE),
        op_id: uuid_label(&labels, label::OP_ID),
        attempt: attempt(&labels),
    })
}

fn attempt(labels: &HashMap<String, String>) -> u32 {
    let text = labels.get(label::ATTEMPT);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// `None` for one this version does not know.
pub(super) fn state_in(word: &str) -> Option<State> {
    match word {
        "created" => Some(State::Created),
        "running" => Some(State::Running),
        "paused" => Some(State::Paused),
        "restarting" => Some(State::Restarting),
        "removing" => Some(State::Removing),
        "exited" => Some(State::Exited),
        "dead" => Some(State::Dead),
        _ => None,
    }
}

/// Before API 1.53 the list tells health only in its words: `Up 2 minutes (healthy)`.
fn health_in(status: &str) -> Option<Health> {
    let (_, words) = status.rsplit_once('(')?;
    match words {
        "healthy)" => Some(Health::Healthy),
        "unhealthy)" => Some(Health::Unhealthy),
        "health: starting)" => Some(Health::Starting),
        _ => None,
    }
}

/// `Exited (137) 3 seconds ago`.
fn exit_code_in(status: &str) -> Option<i32> {
    let rest = status.strip_prefix("Exited (")?;
    rest.split_once(')')?.0.parse().ok()
}

/// How long ago it started or ended, as the list's words have it: `Up 7 minutes`, `Exited (0) 2 days ago`.
fn age_in(status: &str) -> Option<Range<Duration>> {
    let words = match status.strip_prefix("Up ") {
        Some(words) => words,
        None => {
            let rest = status.strip_prefix("Exited (")?;
            rest.split_once(") ")?.1.strip_suffix(" ago")?
        }
    };
    let seconds = |from: u64, to: u64| Some(Duration::from_secs(from)..Duration::from_secs(to));
    let mut words = words.split(' ');
    let (first, second, third) = (words.next()?, words.next()?, words.next());
    let (number, unit) = match (first, second) {
        ("Less", "than") => return seconds(0, 1),
        ("About", _) => (1, third?),
        _ => (first.parse::<u64>().ok()?, second),
    };
    let (unit, rounded) = match unit {
        "second" | "seconds" => (1, 0),
        "minute" | "minutes" => (60, 0),
        "hour" | "hours" => (3600, 1),
        "day" | "days" => (86_400, 1),
        "week" | "weeks" => (7 * 86_400, 1),
        "month" | "months" => (30 * 86_400, 1),
        "year" | "years" => (365 * 86_400, 1),
        _ => return None,
    };
    let (from, to) = (number.saturating_sub(rounded), number.saturating_add(1));
    seconds(from.saturating_mul(unit), to.saturating_mul(unit))
}

pub(super) fn inspected(container: ContainerInspectResponse) -> ContainerInfo {
    let config = container.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let state = container.state.unwrap_or_default();
    let status = state.status.and_then(|status| state_in(status.as_ref()));
    let ended = matches!(status, Some(State::Exited | State::Dead));
    let health = state.health.and_then(|h| h.status).and_then(|h| match h {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        _ => None,
    });
    let exit_code = state.exit_code.and_then(|code| code.try_into().ok());
    let name = container.name.unwrap_or_default();
    let ports = container.network_settings.and_then(|n| n.ports);
    ContainerInfo {
        listed: Listed {
            labelled: labels.contains_key(label::WORKSPACE),
            prefix: labels.get(label::PREFIX).cloned(),
            age: None,
            id: container.id.unwrap_or_default(),
            name: name.trim_start_matches('/').to_owned(),
            image: config.image.unwrap_or_default(),
            state: status,
            health: health.filter(|_| status == Some(State::Running)),
            exit_code: exit_code.filter(|_| ended),
            workspace: uuid_label(&labels, label::WORKSPACE),
            op_id: uuid_label(&labels, label::OP_ID),
            attempt: attempt(&labels),
        },
        oom_killed: state.oom_killed.unwrap_or(false),
        started_at: time(state.started_at.as_deref()),
        finished_at: time(state.finished_at.as_deref()).filter(|_| ended),
        error: state.error.unwrap_or_default(),
        ports: ports.map(published).unwrap_or_default(),
    }
}

/// The engine says "never" with the year 1.
fn time(text: Option<&str>) -> Option<DateTime<Utc>> {
    let at = DateTime::parse_from_rfc3339(text?).ok()?.to_utc();
    (at.timestamp() > 0).then_some(at)
}

fn published(ports: PortMap) -> Vec<(u16, SocketAddr)> {
    let mut found = Vec::new();
    for (port, bindings) in ports {
        let Some(inside) = port.strip_suffix("/tcp").and_then(|p| p.parse().ok()) else {
            continue;
        };
        for binding in bindings.into_iter().flatten() {
            let address = binding.host_ip.and_then(|ip| ip.parse::<IpAddr>().ok());
            let outside = binding.host_port.and_then(|p| p.parse().ok());
            let (Some(address), Some(outside)) = (address, outside) else {
                continue;
            };
            // On every interface means on loopback, too.
            let address = match address {
                IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                other => other,
            };
            found.push((inside, SocketAddr::new(address, outside)));
        }
    }
    found.sort_by_key(|(inside, address)| (*inside, address.is_ipv6()));
    found
}

#[cfg(test)]
mod tests {
    use bollard::models::PortBinding;

    use super::*;

    #[test]
    fn the_lists_words() {
        for (words, health, exit) in [
            ("Up 2 minutes", None, None),
            ("Up 2 minutes (healthy)", Some(Health::Healthy), None),
            (
                "Up 1 second (health: starting)",
                Some(Health::Starting),
                None,
            ),
            ("Up 3 hours (unhealthy)", Some(Health::Unhealthy), None),
            ("Up 3 hours (Paused)", None, None),
            ("Exited (137) 3 seconds ago", None, Some(137)),
            ("Created", None, None),
        ] {
            assert_eq!((health_in(words), exit_code_in(words)), (health, exit));
        }
    }

    #[test]
    fn the_lists_ages() {
        for (words, from, to) in [
            ("Up Less than a second", 0, 1),
            ("Up 1 second", 1, 2),
            ("Up 42 seconds (healthy)", 42, 43),
            ("Up About a minute", 60, 120),
            ("Up 7 minutes (Paused)", 420, 480),
            ("Up About an hour (health: starting)", 0, 7200),
            ("Up 47 hours", 46 * 3600, 48 * 3600),
            ("Exited (137) 3 seconds ago", 3, 4),
            ("Exited (0) 2 weeks ago", 7 * 86_400, 21 * 86_400),
        ] {
            let age = age_in(words).unwrap();
            let seconds = (age.start.as_secs(), age.end.as_secs());
            assert_eq!(seconds, (from, to), "{words}");
        }
        for words in [
            "Created",
            "Dead",
            "Removal In Progress",
            "Up",
            "Up and away",
        ] {
            assert_eq!(age_in(words), None, "{words}");
        }
    }

    #[test]
    fn never_is_no_time() {
        assert_eq!(time(Some("0001-01-01T00:00:00Z")), None);
        let at = time(Some("2026-11-21T20:38:26.414920707Z")).unwrap();
        assert_eq!(at.timestamp_subsec_nanos(), 414_920_707);
    }

    #[test]
    fn published_everywhere_is_reached_on_loopback() {
        let binding = |ip: &str, port: &str| PortBinding {
            host_ip: Some(ip.to_owned()),
            host_port: Some(port.to_owned()),
        };
        let ports = PortMap::from([
            (
                "8080/tcp".to_owned(),
                Some(vec![binding("::", "2"), binding("0.0.0.0", "1")]),
            ),
            ("53/udp".to_owned(), Some(vec![binding("127.0.0.1", "3")])),
            ("9/tcp".to_owned(), None),
        ]);
        let found: Vec<String> = published(ports)
            .into_iter()
            .map(|(inside, address)| format!("{inside} {address}"))
            .collect();
        assert_eq!(found, ["8080 127.0.0.1:1", "8080 [::1]:2"]);
    }
}
