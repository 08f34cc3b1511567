"""Alerts and dashboards: that Prometheus takes the rules, that each alert fires and does not, that every runbook
section and every metric they speak of is there."""

import json
import re
import subprocess
import tempfile
import unittest

import alerts
import yaml
from manifests import K8S, ROOT, of_kind, overlay

MONITORING = K8S / "components/monitoring"
RUNBOOK = "docs/operations.md#"


def rule_groups():
    (document,) = of_kind(overlay("prod"), "PrometheusRule")
    return document["spec"]


def all_alerts():
    return [rule for group in rule_groups()["groups"] for rule in group["rules"]]


def dashboards():
    return {path.name: json.loads(path.read_text()) for path in sorted(MONITORING.glob("dashboards/*.json"))}


def panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def anchors(markdown):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.+?)\s*$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def documented_metrics():
    """Name to type: the table that integration/tests/metrics.rs compares with what services export."""
    table = (ROOT / "docs/metrics.md").read_text()
    return dict(re.findall(r"^\| `(windlass_\w+)` \| (\w+) \|", table, re.MULTILINE))


def documented_labels():
    """Of all metrics."""
    table = (ROOT / "docs/metrics.md").read_text()
    cells = re.findall(r"^\| `windlass_\w+` \| \w+ \|([^|]*)\|", table, re.MULTILINE)
    return {label.strip() for cell in cells for label in cell.split(",")} - {""}


def metrics_of(expression):
    """Ours. Labels' values are left out, and so are the suffixes of histograms."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\bwindlass_\w+", bare))


def unknown_metrics(expression, documented):
    known = set(documented)
    for name, kind in documented.items():
        if kind == "histogram":
            known |= {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")}
            known.discard(name)
    return metrics_of(expression) - known


def promtool(*arguments):
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def fires(alert, case, group):
    """Whether the alert fires in a case, as promtool sees it."""
    when, series = case
    firing = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0'
    tests = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": when, "exp_samples": [{"labels": "{}", "value": 1}]}
                ],
            }
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/rules.yaml", "w", encoding="utf-8") as file:
            yaml.safe_dump(group, file)
        with open(f"{folder}/tests.yaml", "w", encoding="utf-8") as file:
            yaml.safe_dump(tests, file)
        code, output = promtool("test", "rules", f"{folder}/tests.yaml")
    if code and "got:" not in output:
        raise RuntimeError(f"promtool cannot run {alert}: {output}")
    return code == 0


class Rules(unittest.TestCase):
    def test_prometheus_takes_them(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(rule_groups(), file)
            file.flush()
            code, output = promtool("check", "rules", file.name)
        self.assertEqual(code, 0, output)

    def test_each_alert_fires_and_does_not(self):
        names = [rule["alert"] for rule in all_alerts()]
        self.assertEqual(sorted(names), sorted(set(names)))
        self.assertEqual(set(names), set(alerts.FIRES), "an alert without a case in which it fires")
        self.assertEqual(set(names), set(alerts.QUIET), "an alert without a case in which it does not")
        group = rule_groups()
        for name in names:
            for case in alerts.FIRES[name]:
                with self.subTest(alert=name, case=case):
                    self.assertTrue(fires(name, case, group), f"{name} does not fire")
            for case in alerts.QUIET[name]:
                with self.subTest(alert=name, case=case):
                    self.assertFalse(fires(name, case, group), f"{name} fires")

    def test_each_alert_says_what_it_means_and_where_its_runbook_is(self):
        runbook = anchors((ROOT / "docs/operations.md").read_text())
        for rule in all_alerts():
            with self.subTest(alert=rule["alert"]):
                self.assertIn(rule["labels"]["severity"], {"critical", "warning", "info"})
                self.assertTrue(rule["annotations"]["summary"])
                base, _, anchor = rule["annotations"]["runbook_url"].partition("#")
                self.assertTrue(f"{base}#".endswith(RUNBOOK))
                self.assertEqual(anchor, rule["alert"].lower())
                self.assertIn(anchor, runbook)

    def test_one_setting_of_the_overlay_says_where_the_runbook_is(self):
        bases = {rule["annotations"]["runbook_url"].partition("#")[0] for rule in all_alerts()}
        self.assertEqual(bases, {"https://change-me.example.com/docs/operations.md"})
        self.assertNotIn("windlass-runbook", {m["metadata"]["name"] for m in of_kind(overlay("prod"), "ConfigMap")})

    def test_no_section_speaks_of_an_alert_that_is_not_there(self):
        sections = re.findall(r"^#+ (Windlass[A-Z]\w+)", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
        self.assertEqual(set(sections), {rule["alert"] for rule in all_alerts()})


class Metrics(unittest.TestCase):
    def test_rules_and_dashboards_use_documented_metrics(self):
        documented = documented_metrics()
        self.assertGreater(len(documented), 30)
        for rule in all_alerts():
            self.assertEqual(unknown_metrics(rule["expr"], documented), set(), rule["alert"])
        for name, dashboard in dashboards().items():
            for panel in panels(dashboard):
                for target in panel.get("targets", []):
                    self.assertTrue(metrics_of(target["expr"]), target)
                    self.assertEqual(unknown_metrics(target["expr"], documented), set(), (name, panel["title"]))

    def test_labels_of_ours_and_of_the_operator_go_together(self):
        # What the Prometheus operator gives each target, and our relabeling.
        targets = {"job", "instance", "namespace", "pod", "container", "endpoint", "service", "node"}
        both = documented_labels() & targets
        # Alerts go by the others: a metric must not bring its own.
        self.assertLessEqual(both, {"service"})
        endpoints = [e for m in of_kind(overlay("prod"), "ServiceMonitor") for e in m["spec"]["endpoints"]]
        self.assertEqual(len(endpoints), 2)
        for endpoint in endpoints:
            self.assertEqual(endpoint.get("honorLabels", False), bool(both))

    def test_an_undocumented_metric_is_seen(self):
        documented = {"windlass_leader": "gauge", "windlass_rpc_duration_seconds": "histogram"}
        self.assertEqual(unknown_metrics('sum(windlass_leader{job=~"windlass_x"})', documented), set())
        self.assertEqual(unknown_metrics("rate(windlass_rpc_duration_seconds_sum[5m])", documented), set())
        for wrong in ("windlass_boss", "windlass_rpc_duration_seconds", "windlass_leader_count"):
            self.assertEqual(unknown_metrics(f"max({wrong})", documented), {wrong})


class Dashboards(unittest.TestCase):
    def test_they_can_be_loaded_into_any_grafana(self):
        found = dashboards()
        self.assertEqual(len({d["uid"] for d in found.values()}), len(found))
        for name, dashboard in found.items():
            with self.subTest(dashboard=name):
                self.assertEqual(f"{dashboard['uid']}.json", name)
                ids = [panel["id"] for panel in panels(dashboard)]
                self.assertEqual(len(ids), len(set(ids)))
                (source,) = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
                self.assertEqual(source["name"], "datasource")
                uids = set(re.findall(r'"datasource": \{[^}]*"uid": "([^"]*)"', json.dumps(dashboard)))
                self.assertEqual(uids, {"${datasource}"})
                for panel in panels(dashboard):
                    self.assertTrue(panel["title"])
                    if panel["type"] != "row":
                        self.assertTrue(panel["targets"], panel["title"])

    def test_no_two_panels_lie_on_each_other(self):
        for name, dashboard in dashboards().items():
            taken = {}
            for panel in dashboard["panels"]:
                at = panel["gridPos"]
                self.assertLessEqual(at["x"] + at["w"], 24)
                for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
                    self.assertNotIn(cell, taken, (name, panel["title"], taken.get(cell)))
                    taken[cell] = panel["title"]

    def test_the_overlay_hands_them_to_grafana(self):
        maps = {m["metadata"]["name"]: m for m in of_kind(overlay("prod"), "ConfigMap")}
        handed = maps["windlass-dashboards"]
        self.assertEqual(handed["metadata"]["labels"]["grafana_dashboard"], "1")
        self.assertEqual({n: json.loads(t) for n, t in handed["data"].items()}, dashboards())
