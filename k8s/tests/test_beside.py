"""What stands beside the manifests and must agree with them: compose.yaml, the systemd unit, the Dockerfile."""

import importlib.util
import pathlib
import re
import unittest

import manifests
from manifests import ROOT, of_kind, overlay
from test_policies import known

spec = importlib.util.spec_from_file_location("compose", ROOT / "k8s/images/compose.py")
compose = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compose)

SECRETS = (
    "POSTGRES_PASSWORD", "WINDLASS_ROLE_PASSWORD", "WINDLASS_SERVICE_TOKEN", "WINDLASS_ADMIN_TOKEN", "S3_SECRET_KEY",
)


def services(*more):
    return compose.load([ROOT / "compose.yaml", *more], dict.fromkeys(SECRETS, "given"))["services"]


def program(service):
    return manifests.is_ours({"image": service["image"]})


class Compose(unittest.TestCase):
    def test_every_variable_is_one_the_program_knows(self):
        found = set()
        for name, service in services().items():
            if program(service) is None:
                continue
            found.add(program(service))
            unknown = set(service["environment"]) - known(program(service))
            self.assertEqual(unknown, set(), name)
        self.assertEqual(found, {"api", "agent", "observer", "wc", "ttl", "gc", "migrate"})

    def test_images_name_a_version_and_programs_are_locked_down(self):
        for name, service in services().items():
            tag = service["image"].rsplit("/", 1)[-1].partition(":")[2]
            self.assertNotIn(tag, ("", "latest"), name)
            if program(service):
                self.assertEqual(service["cap_drop"], ["ALL"], name)
                self.assertIs(service["read_only"], True, name)
            if program(service) != "agent":
                self.assertNotIn("cap_add", service, name)
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), name)

    def test_the_agent_has_the_same_rights_everywhere(self):
        agent = of_kind(overlay("prod"), "DaemonSet")[0]
        rights = manifests.containers(agent)[0]["securityContext"]["capabilities"]["add"]
        self.assertEqual(services()["agent"]["cap_add"], rights)
        unit = (ROOT / "k8s/systemd/windlass-agent.service").read_text()
        bounding = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE).group(1).split()
        self.assertEqual(bounding, [f"CAP_{right}" for right in rights])

    def test_a_missing_secret_is_named(self):
        with self.assertRaises(SystemExit) as missing:
            compose.load([ROOT / "compose.yaml"], {})
        self.assertIn("is not set", str(missing.exception))

    def test_what_the_runner_does_not_know_it_refuses(self):
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            extra = pathlib.Path(folder) / "extra.yaml"
            extra.write_text("services:\n  api:\n    privileged: true\n")
            with self.assertRaises(compose.Unknown):
                services(extra)

    def test_the_offline_file_changes_stores_only(self):
        plain, offline = services(), services(ROOT / "k8s/images/offline.compose.yaml")
        changed = {name for name in plain if plain[name] != offline[name]}
        self.assertEqual(changed, {"postgres", "redis", "s3"})

    def test_services_start_after_what_they_need(self):
        found = services()
        order = compose.order(found)
        for name, service in found.items():
            for other in service.get("depends_on", {}):
                self.assertLess(order.index(other), order.index(name))


class Beside(unittest.TestCase):
    def test_the_unit_sets_variables_that_the_agent_knows(self):
        unit = (ROOT / "k8s/systemd/windlass-agent.service").read_text()
        set_there = set(re.findall(r"^Environment=([A-Z0-9_]+)=", unit, re.MULTILINE))
        self.assertGreater(len(set_there), 4)
        self.assertEqual(set_there - known("agent"), set())

    def test_the_dockerfile_suits_the_classic_builder(self):
        text = (ROOT / "Dockerfile").read_text()
        self.assertNotRegex(text, r"(?m)^#\s*syntax\s*=")
        self.assertNotRegex(text, r"(?m)^\s*(RUN|COPY)\s+--(mount|link|chmod)")
        arguments = set(re.findall(r"(?m)^FROM \$\{(\w+)\}", text))
        self.assertEqual(arguments, {"BASE_IMAGE", "BUILDER_IMAGE"})


if __name__ == "__main__":
    unittest.main()
