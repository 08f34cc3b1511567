"""What NetworkPolicies let through, worked out as Kubernetes does: an arrow exists where both ends allow
it, and a pod that no policy selects for a direction is open in that direction."""

from manifests import WORKLOADS, key, labels_of_pods, of_kind

OPEN = "anywhere"


def matches(selector, labels):
    if "matchExpressions" in selector:
        raise ValueError("matchExpressions are not understood here: use matchLabels")
    return selector.get("matchLabels", {}).items() <= labels.items()


class Network:
    """The pods of an overlay and the policies between them."""

    def __init__(self, documents):
        self.pods = {
            key(w): (key(w)[0], labels_of_pods(w), self.ports(w))
            for w in of_kind(documents, *WORKLOADS)
        }
        self.policies = of_kind(documents, "NetworkPolicy")

    @staticmethod
    def ports(workload):
        containers = workload["spec"]["template"]["spec"]["containers"]
        return {p["containerPort"] for c in containers for p in c.get("ports", [])}

    def rules(self, pod, direction):
        """None: nothing restricts this pod in this direction."""
        namespace, labels, _ = pod
        selecting = [
            policy
            for policy in self.policies
            if key(policy)[0] == namespace
            and direction in policy["spec"]["policyTypes"]
            and matches(policy["spec"]["podSelector"], labels)
        ]
        if not selecting:
            return None
        field = direction.lower()
        return [(key(p)[0], rule) for p in selecting for rule in p["spec"].get(field, [])]

    def allows(self, pod, direction, other, port):
        rules = self.rules(pod, direction)
        return rules is None or any(
            self.port_in(rule, port) and self.peer_in(namespace, rule, direction, other)
            for namespace, rule in rules
        )

    @staticmethod
    def port_in(rule, port):
        return "ports" not in rule or any(p["port"] == port for p in rule["ports"])

    @staticmethod
    def peer_in(namespace, rule, direction, other):
        peers = rule.get("from" if direction == "Ingress" else "to")
        if peers is None:
            return True
        other_namespace, labels, _ = other
        for peer in peers:
            if "ipBlock" in peer:
                continue
            there = (
                matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other_namespace})
                if "namespaceSelector" in peer
                else other_namespace == namespace
            )
            if there and matches(peer.get("podSelector", {}), labels):
                return True
        return False

    def inside(self):
        """(from, to, port) between pods of the overlay."""
        return {
            (source[1], target[1], port)
            for source, source_pod in self.pods.items()
            for target, target_pod in self.pods.items()
            if source != target
            for port in target_pod[2]
            if self.allows(source_pod, "Egress", target_pod, port)
            and self.allows(target_pod, "Ingress", source_pod, port)
        }

    def outside(self, direction):
        """(pod, what is outside, port) for everything that is no pod of the overlay."""
        found = set()
        for name, pod in self.pods.items():
            rules = self.rules(pod, direction)
            if rules is None:
                found.add((name[1], OPEN, OPEN))
                continue
            for _, rule in rules:
                peers = rule.get("from" if direction == "Ingress" else "to", [{}])
                for peer in peers:
                    for port in (p["port"] for p in rule.get("ports", [{"port": OPEN}])):
                        if "ipBlock" in peer:
                            found.add((name[1], peer["ipBlock"]["cidr"], port))
                            continue
                        wanted = peer.get("namespaceSelector", {}).get("matchLabels", {})
                        namespace = wanted.get("kubernetes.io/metadata.name")
                        if not peer:
                            found.add((name[1], OPEN, port))
                        elif namespace and namespace not in {p[0] for p in self.pods.values()}:
                            found.add((name[1], namespace, port))
        return found
