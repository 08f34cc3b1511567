"""NetworkPolicies allow the arrows of the architecture, all of them and no other."""

import copy
import unittest

from arrows import Network
from manifests import OVERLAYS, of_kind, overlay, render

COORDINATORS = ("observer", "wc", "ttl", "gc")
AGENT_CLIENTS = ("api", "observer", "wc", "gc")
POSTGRES_CLIENTS = ("api", "migrate", *COORDINATORS)
REDIS_CLIENTS = ("api", "observer", "wc", "ttl")
SERVICES = ("api", "agent", *COORDINATORS)
HTTP = {"api": 7500, "agent": 7501, "observer": 7502, "wc": 7503, "ttl": 7504, "gc": 7505}


def arrows(sources, target, port):
    return {(f"windlass-{source}", target, port) for source in sources}


BETWEEN_OURS = arrows(AGENT_CLIENTS, "windlass-agent", 7401)
STORES_INSIDE = (
    arrows(POSTGRES_CLIENTS, "windlass-postgres", 5432)
    | arrows(REDIS_CLIENTS, "windlass-redis", 6379)
    | arrows(["agent"], "windlass-s3", 9000)
)
STORES_OUTSIDE = (
    arrows(POSTGRES_CLIENTS, "192.0.2.10/32", 5432)
    | arrows(REDIS_CLIENTS, "192.0.2.11/32", 6379)
    | arrows(["agent"], "198.51.100.0/24", 443)
    | arrows(AGENT_CLIENTS, "203.0.113.0/24", 7401)
)


class Arrows(unittest.TestCase):
    maxDiff = None

    def without_dns(self, found):
        pods = {pod for pod, where, port in found if (where, port) == ("kube-system", 53)}
        return {arrow for arrow in found if arrow[1:] != ("kube-system", 53)}, pods

    def test_dev(self):
        network = Network(overlay("dev"))
        self.assertEqual(network.inside(), BETWEEN_OURS | STORES_INSIDE)
        out, _ = self.without_dns(network.outside("Egress"))
        self.assertEqual(out, set())
        self.assertEqual(network.outside("Ingress"), set())

    def test_prod(self):
        network = Network(overlay("prod"))
        self.assertEqual(network.inside(), BETWEEN_OURS)
        out, _ = self.without_dns(network.outside("Egress"))
        self.assertEqual(out, STORES_OUTSIDE)
        scraped = {(f"windlass-{s}", "monitoring", port) for s, port in HTTP.items()}
        # One policy lists the ports of all; a pod listens on its own only.
        into = {(p, n, port) for p, n, port in network.outside("Ingress") if n != "monitoring"}
        self.assertEqual(into, {("windlass-api", "gateway-system", 7400)})
        listens = {(p[1], port) for p, pod in network.pods.items() for port in pod[2]}
        reached = {a for a in network.outside("Ingress") - into if (a[0], a[2]) in listens}
        self.assertEqual(reached, scraped)

    def test_ingress(self):
        network = Network(render("tests/ingress"))
        self.assertEqual(network.inside(), BETWEEN_OURS)
        out, _ = self.without_dns(network.outside("Egress"))
        self.assertEqual(out, set())
        self.assertEqual(network.outside("Ingress"), {("windlass-api", "ingress-nginx", 7400)})

    def test_everything_asks_dns_and_nothing_is_left_open(self):
        for name in OVERLAYS:
            with self.subTest(overlay=name):
                network = Network(overlay(name))
                _, pods = self.without_dns(network.outside("Egress"))
                self.assertEqual(pods, {pod[1] for pod in network.pods})

    def test_a_missing_policy_is_noticed(self):
        documents = copy.deepcopy(overlay("prod"))
        without = [d for d in documents if d["metadata"]["name"] != "from-coordinators"]
        self.assertEqual(Network(without).inside(), set())
        open_to_all = [d for d in documents if d["kind"] != "NetworkPolicy"]
        self.assertIn(("windlass-ttl", "windlass-agent", 7401), Network(open_to_all).inside())
        self.assertGreater(len(of_kind(documents, "NetworkPolicy")), 5)


if __name__ == "__main__":
    unittest.main()
