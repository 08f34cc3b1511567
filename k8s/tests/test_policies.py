"""Kubernetes' schemas, and our own rules, on every overlay."""

import copy
import functools
import os
import re
import subprocess
import unittest

import kubernetes_validate
import manifests
import policies
from manifests import OVERLAYS, ROOT, SECRETS_EXAMPLE, is_ours, of_kind, overlay, with_secrets

OLDEST = "1.30.0"


@functools.cache
def known(program):
    """The variables that a program's --help names."""
    folder = os.environ.get("WINDLASS_PROGRAMS", str(ROOT / "target/debug"))
    path = f"{folder}/windlass-{program}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WINDLASS_")}
    helped = subprocess.run([path, "--help"], capture_output=True, text=True, check=False, env=clean)
    variables = set(re.findall(r"\[env: ([A-Z0-9_]+)", helped.stdout))
    if helped.returncode or not variables:
        raise RuntimeError(f"{path} --help tells no variables: {helped.stderr or helped.stdout!r}")
    return variables


class Schemas(unittest.TestCase):
    def test_strictly_valid_for_the_oldest_and_the_newest_kubernetes(self):
        newest = kubernetes_validate.latest_version()
        self.assertGreaterEqual(tuple(map(int, newest.split(".")[:2])), (1, 34))
        for name in (*OVERLAYS, SECRETS_EXAMPLE):
            checked = 0
            for document in overlay(name):
                kind = (document["apiVersion"], document["kind"])
                if kind in manifests.CUSTOM:
                    continue
                for version in (OLDEST, newest):
                    with self.subTest(overlay=name, document=manifests.where(document), version=version):
                        used = kubernetes_validate.validate(document, version, strict=True)
                        self.assertEqual(used.split(".")[:2], version.split(".")[:2])
                checked += 1
            self.assertGreater(checked, 5)

    def test_the_schemas_are_strict(self):
        deployment = copy.deepcopy(of_kind(overlay("dev"), "Deployment")[0])
        deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, OLDEST, strict=True)

    def test_no_field_is_given_twice(self):
        # A YAML parser keeps the last one in silence, and so does kustomize.
        import yaml

        class Loader(yaml.SafeLoader):
            pass

        def mapping(loader, node, deep=False):
            keys = [loader.construct_object(k, deep=True) for k, _ in node.value]
            doubled = {k for k in keys if keys.count(k) > 1}
            self.assertFalse(doubled, f"{node.start_mark}")
            return yaml.SafeLoader.construct_mapping(loader, node, deep)

        Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
        files = sorted(manifests.K8S.rglob("*.yaml"))
        self.assertGreater(len(files), 15)
        for path in files:
            with self.subTest(file=path.relative_to(ROOT)):
                list(yaml.load_all(path.read_text(), Loader))


class Rules(unittest.TestCase):
    def test_every_rule_on_every_overlay(self):
        for name in OVERLAYS:
            for rule in policies.SIMPLE:
                with self.subTest(overlay=name, rule=rule.__name__):
                    self.assertEqual(list(rule(with_secrets(name))), [])

    def test_every_variable_is_one_the_program_knows(self):
        for name in OVERLAYS:
            with self.subTest(overlay=name):
                self.assertEqual(list(policies.environment(overlay(name), known)), [])

    def test_every_program_is_deployed(self):
        expected = {"api", "agent", "observer", "wc", "ttl", "gc", "migrate"}
        for name in OVERLAYS:
            found = {
                is_ours(container)
                for workload in of_kind(overlay(name), *manifests.WORKLOADS)
                for container in manifests.containers(workload)
            }
            self.assertEqual(found - {None}, expected)

    def test_the_alternative_way_in_builds_too(self):
        documents = manifests.render("tests/ingress")
        for rule in policies.SIMPLE:
            with self.subTest(rule=rule.__name__):
                self.assertEqual(list(rule(documents + overlay(SECRETS_EXAMPLE))), [])
        for document in documents:
            for version in (OLDEST, kubernetes_validate.latest_version()):
                kubernetes_validate.validate(document, version, strict=True)
        # Both ways in lead to the same services, and to no others.
        (ingress,) = of_kind(documents, "Ingress")
        (route,) = of_kind(overlay("prod"), "GRPCRoute")
        paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        matches = [match["method"]["service"] for rule in route["spec"]["rules"] for match in rule["matches"]]
        self.assertEqual([(p["path"], p["pathType"]) for p in paths], [(f"/{name}", "Prefix") for name in matches])
        self.assertEqual(matches, ["windlass.v1.WorkspaceService", "windlass.v1.HostService"])

    def test_the_documented_order_of_an_upgrade_finds_its_workloads(self):
        workloads = of_kind(overlay("prod"), *manifests.WORKLOADS)
        for workload in workloads:
            name = workload["metadata"]["name"]
            self.assertEqual(workload["metadata"]["labels"]["app.kubernetes.io/name"], name)
        text = (ROOT / "docs/kubernetes.md").read_text()
        left_out = [set(re.findall(r"[\w-]+", names)) for names in re.findall(r"notin \(([^)]*)\)", text)]
        deployments = {w["metadata"]["name"] for w in of_kind(workloads, "Deployment")}
        self.assertEqual(left_out, [deployments, {"windlass-api"}])

    def test_prod_holds_no_secret(self):
        self.assertEqual(of_kind(overlay("prod"), "Secret"), [])


class RulesFindWhatBreaksThem(unittest.TestCase):
    """A rule that never speaks proves nothing: each is shown a manifest that breaks it."""

    def broken(self, change):
        documents = copy.deepcopy(with_secrets("prod"))
        deployment = next(d for d in of_kind(documents, "Deployment") if d["metadata"]["name"] == "windlass-wc")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        change(documents, deployment, container)
        return documents

    def test_each(self):
        def drop(field):
            return lambda documents, deployment, container: container.pop(field)

        def service_port(documents, *_):
            of_kind(documents, "Service")[0]["spec"]["ports"][0]["targetPort"] = "nowhere"

        def no_budget(documents, *_):
            documents[:] = [d for d in documents if d["kind"] != "PodDisruptionBudget"]

        def strict_budget(documents, *_):
            for budget in of_kind(documents, "PodDisruptionBudget"):
                budget["spec"].pop("unhealthyPodEvictionPolicy")

        def spread(policy):
            return lambda d, w, c: w["spec"]["template"]["spec"]["topologySpreadConstraints"][0].pop(policy)

        def secret_key(documents, *_):
            next(s for s in of_kind(documents, "Secret") if s["metadata"]["name"] == "windlass-wc")["data"] = {}

        def monitor(documents, *_):
            of_kind(documents, "ServiceMonitor")[0]["spec"]["endpoints"][0]["port"] = "nowhere"

        def role(documents, *_):
            documents.append({"kind": "ClusterRole", "metadata": {"name": "x", "namespace": "windlass"}})

        def agent_reason(documents, *_):
            agent = of_kind(documents, "DaemonSet")[0]
            agent["spec"]["template"]["metadata"]["annotations"].clear()

        def late(kind):
            def change(documents, *_):
                for document in of_kind(documents, kind):
                    document["metadata"].get("annotations", {}).clear()
            return change

        def early_gc(documents, *_):
            gc = next(d for d in of_kind(documents, "Deployment") if d["metadata"]["name"] == "windlass-gc")
            gc["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] = "1"

        cases = [
            (policies.probes, drop("livenessProbe")),
            (policies.probes, drop("startupProbe")),
            (policies.probes, lambda d, w, c: c["livenessProbe"]["grpc"].update(service="readiness")),
            (policies.probes, lambda d, w, c: c["readinessProbe"]["grpc"].pop("service")),
            (policies.probes, lambda d, w, c: c["readinessProbe"].update(
                httpGet={"path": "/readyz", "port": "http"}, grpc={})),
            (policies.resources, drop("resources")),
            (policies.restricted, drop("securityContext")),
            (policies.restricted, agent_reason),
            (policies.restricted, lambda d, w, c: w["spec"]["template"]["spec"].pop("securityContext")),
            (policies.restricted, lambda d, w, c: c["securityContext"].update(privileged=True)),
            (policies.service_accounts, role),
            (policies.service_accounts, lambda d, w, c: w["spec"]["template"]["spec"].pop("automountServiceAccountToken")),
            (policies.image_tags, lambda d, w, c: c.update(image="registry.example.com:5000/windlass/wc")),
            (policies.image_tags, lambda d, w, c: c.update(image="windlass/wc:latest")),
            (policies.services, service_port),
            (policies.services, lambda d, w, c: c["ports"].pop()),
            (policies.references, monitor),
            (policies.availability, no_budget),
            (policies.availability, strict_budget),
            (policies.availability, spread("nodeTaintsPolicy")),
            (policies.availability, spread("nodeAffinityPolicy")),
            (policies.availability, lambda d, w, c: w["spec"].update(replicas=1)),
            (policies.secrets, secret_key),
            (policies.secrets, drop("volumeMounts")),
            (policies.secrets, lambda d, w, c: c["env"].append({"name": "WINDLASS_SERVICE_TOKEN", "value": "x"})),
            (policies.namespaces, lambda d, w, c: w["metadata"].update(namespace="windlass-agents")),
            (policies.waves, late("Namespace")),
            (policies.waves, late("ServiceAccount")),
            (policies.waves, late("Secret")),
            (policies.waves, late("HorizontalPodAutoscaler")),
            (policies.waves, late("Deployment")),
            (policies.waves, late("PodDisruptionBudget")),
            (policies.waves, early_gc),
            (policies.waves, lambda d, w, c: w["metadata"]["annotations"].update(
                {"argocd.argoproj.io/sync-wave": "2"})),
        ]
        for rule, change in cases:
            with self.subTest(rule=rule.__name__):
                self.assertTrue(list(rule(self.broken(change))))
        self.assertEqual({rule for rule, _ in cases}, set(policies.SIMPLE))

    def test_environment(self):
        documents = self.broken(lambda d, w, c: c["env"].append({"name": "WINDLASS_IDLE_PERIODS", "value": "1s"}))
        found = list(policies.environment(documents, known))
        self.assertEqual(len(found), 1)
        self.assertIn("windlass-wc knows no WINDLASS_IDLE_PERIODS", found[0])


if __name__ == "__main__":
    unittest.main()
