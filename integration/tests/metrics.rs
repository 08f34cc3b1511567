//! docs/metrics.md and what running services export are the same: names, types, labels, and who exports what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use windlass_integration::{Name, World, http, wait};
use windlass_proto::v1::{DesiredState, Phase, TtlServiceRunOnceRequest, WatchWorkspacesRequest};

/// A metric, by name.
type Metrics = BTreeMap<String, Metric>;

#[derive(Clone, Debug, Default)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    services: BTreeSet<String>,
}

fn documented() -> Metrics {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let words = |cell: &str| -> BTreeSet<String> {
        let words = cell.split(',').map(|word| word.trim().to_owned());
        words.filter(|word| !word.is_empty()).collect()
    };
    let mut metrics = Metrics::new();
    for line in text.lines().filter(|line| line.starts_with("| `windlass_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, services, meaning, _after, _] = cells[..] else {
            panic!("not a row of the table: {line}");
        };
        assert!(!meaning.is_empty(), "{line}");
        let all = Name::ALL.map(Name::as_str).join(",");
        let services = if services == "all" { &all } else { services };
        let metric = Metric {
            kind: kind.to_owned(),
            labels: words(labels),
            services: words(services),
        };
        let name = name.trim_matches('`').to_owned();
        let twice = metrics.insert(name.clone(), metric);
        assert!(twice.is_none(), "{name} is documented twice");
    }
    assert!(metrics.len() > 30, "{metrics:?}");
    metrics
}

/// Reads Prometheus' text format.
fn parse(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let series = &line[..line.rfind(' ').unwrap()];
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.trim_end_matches('}')),
            None => (series, ""),
        };
        let suffixes = ["_bucket", "_sum", "_count"];
        let base = suffixes.iter().find_map(|suffix| {
            let base = name.strip_suffix(suffix)?;
            metrics.contains_key(base).then(|| base.to_owned())
        });
        let metric = metrics.entry(base.unwrap_or_else(|| name.to_owned()));
        let names = labels.split("\",").filter_map(|pair| pair.split_once('='));
        let names = names.map(|(name, _)| name.to_owned());
        metric
            .or_default()
            .labels
            .extend(names.filter(|name| name != "le"));
    }
    metrics
}

/// What is wrong with the exported metrics of a service; `missing`: also say what it should export.
fn differences(service: &str, exported: &Metrics, table: &Metrics) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, metric) in exported {
        match table.get(name) {
            None => wrong.push(format!("{service} exports {name}, which is not documented")),
            Some(row) if !row.services.contains(service) => {
                wrong.push(format!(
                    "{service} exports {name}: the table has other services"
                ));
            }
            Some(row) if row.kind != metric.kind || row.labels != metric.labels => {
                wrong.push(format!(
                    "{service} exports {name} as {metric:?}: the table has {row:?}"
                ));
            }
            Some(_) => {}
        }
    }
    for (name, row) in table {
        if row.services.contains(service) && !exported.contains_key(name) {
            wrong.push(format!("{service} does not export {name}"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_metric_is_exported() {
    let world = World::options()
        .env("WINDLASS_GC_PERIOD", "1s")
        .start()
        .await;
    let id = world.create("demo").await.id;
    world.phase(&id, Phase::Running).await;
    for (desired, phase) in [
        (DesiredState::Archived, Phase::Archived),
        (DesiredState::Running, Phase::Running),
    ] {
        world.desire(&id, desired).await;
        world.phase(&id, phase).await;
    }
    // ttl publishes hints only when it moved something.
    let idle = "UPDATE workspaces SET last_access_at = now() - interval '1 day', \
                phase_changed_at = now() - interval '1 day'";
    world.sql(idle);
    let request = TtlServiceRunOnceRequest {};
    world.ttl().run_once(request).await.unwrap();
    world.phase(&id, Phase::Standby).await;
    let request = WatchWorkspacesRequest::default();
    let mut watch = world.workspaces().watch_workspaces(request).await.unwrap();
    watch.get_mut().message().await.unwrap();
    // Each service is asked something once.
    for name in Name::ALL {
        world.ask(name).await;
    }

    let table = documented();
    for name in Name::ALL {
        let service = name.as_str();
        let wrong = wait::until(
            &format!("the documented metrics of {service}"),
            async || {
                let text = http::get(world.http_address(name), "/metrics").await;
                differences(service, &parse(&text), &table)
            },
            Vec::is_empty,
        )
        .await;
        assert!(wrong.is_empty());
    }
}

#[test]
fn what_differs_is_seen() {
    let mut table = documented();
    table.retain(|name, _| name == "windlass_leader" || name == "windlass_tick_duration_seconds");
    let good = "# TYPE windlass_leader gauge\nwindlass_leader 1\n\n\
        # TYPE windlass_tick_duration_seconds histogram\n\
        windlass_tick_duration_seconds_bucket{result=\"ok\",le=\"0.1\"} 1\n\
        windlass_tick_duration_seconds_sum{result=\"ok\"} 0.05\n\
        windlass_tick_duration_seconds_count{result=\"ok\"} 1\n";
    assert_eq!(
        differences("wc", &parse(good), &table),
        Vec::<String>::new()
    );
    for (bad, says) in [
        (
            good.replace("leader gauge", "leader counter"),
            "windlass_leader as",
        ),
        (
            good.replace("result=", "outcome="),
            "windlass_tick_duration_seconds as",
        ),
        (
            good.replace("windlass_leader", "windlass_boss"),
            "not documented",
        ),
        (
            good.replace("windlass_leader", "windlass_boss"),
            "does not export windlass_leader",
        ),
    ] {
        let wrong = differences("wc", &parse(&bad), &table).join("\n");
        assert!(wrong.contains(says), "{wrong}");
    }
    let elsewhere = differences("api", &parse(good), &table).join("\n");
    assert!(elsewhere.contains("other services"), "{elsewhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_changes_while_a_service_runs() {
    let world = World::start().await;
    let address = world.http_address(Name::Wc);
    assert_eq!(http::get(address, "/loglevel").await, "info\n");
    let set = http::send(address, "PUT", "/loglevel", "info,windlass_service=debug").await;
    assert_eq!(set, "info,windlass_service=debug\n");
    // Calls that go well are told at debug level.
    let log = world.dir().join("wc.log");
    wait::until(
        "a line at debug level",
        async || {
            world.ask(Name::Wc).await;
            std::fs::read_to_string(&log).unwrap()
        },
        |log| log.contains("DEBUG"),
    )
    .await;
    assert_eq!(
        http::send(address, "DELETE", "/loglevel", "").await,
        "info\n"
    );
}
