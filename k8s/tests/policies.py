"""Our own rules for manifests. Each takes the documents of an overlay and yields what breaks it."""

import re

import manifests
from manifests import WORKLOADS, containers, is_ours, key, labels_of_pods, of_kind, pod_spec, where

ROOT_REASON = "windlass.dev/runs-as-root"
CAPABILITIES_OF_HOMES = {
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "MKNOD", "SETFCAP",
}


def each_container(documents):
    for workload in of_kind(documents, *WORKLOADS):
        for container in containers(workload):
            yield workload, container, f"{where(workload)} container {container['name']}"


def probes(documents):
    """Jobs end by themselves; everything else says whether it has started, lives and is ready. Ours say so by
    gRPC, and only readiness follows what a program needs: nobody is restarted because a database is away."""
    for workload, container, name in each_container(documents):
        if workload["kind"] == "Job":
            continue
        ports = {p["name"] for p in container.get("ports", [])}
        numbers = {p["containerPort"] for p in container.get("ports", [])}
        grpc = {p["containerPort"] for p in container.get("ports", []) if p["name"] == "grpc"}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            found = container.get(probe)
            if not found:
                yield f"{name} has no {probe}"
                continue
            for how in ("grpc", "httpGet", "tcpSocket"):
                port = found.get(how, {}).get("port")
                if port is not None and port not in ports | numbers:
                    yield f"{name}: {probe} asks port {port}, which it does not have"
            if not is_ours(container):
                continue
            if found.get("grpc", {}).get("port") not in grpc:
                yield f"{name}: {probe} does not ask for its gRPC health"
            service = "readiness" if probe == "readinessProbe" else ""
            if found.get("grpc", {}).get("service", "") != service:
                yield f"{name}: {probe} has to ask for the health of {service!r}"


def resources(documents):
    for _, container, name in each_container(documents):
        for bound in ("requests", "limits"):
            for what in ("cpu", "memory"):
                if what not in container.get("resources", {}).get(bound, {}):
                    yield f"{name} has no {bound}.{what}"


def restricted(documents):
    """Pod Security "restricted", but for workloads that give a reason to run as root."""
    for workload in of_kind(documents, *WORKLOADS):
        name, spec = where(workload), pod_spec(workload)
        pod = spec.get("securityContext", {})
        reason = workload["spec"]["template"]["metadata"].get("annotations", {}).get(ROOT_REASON, "")
        as_root = len(reason) > 40
        if as_root and key(workload) != ("windlass-agents", "windlass-agent"):
            yield f"{name}: only the agent has a reason to run as root"
        if not as_root and (pod.get("runAsNonRoot") is not True or not pod.get("runAsUser")):
            yield f"{name} may run as root, and {ROOT_REASON} does not say why"
        if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name} has no seccomp profile"
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                yield f"{name} has {field}"
        if not as_root and any("hostPath" in volume for volume in spec.get("volumes", [])):
            yield f"{name} mounts a path of its node"
        for container in containers(workload):
            own = container.get("securityContext", {})
            if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
                yield f"{name} may gain privileges"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{name} can write to its image"
            capabilities = own.get("capabilities", {})
            allowed = CAPABILITIES_OF_HOMES if as_root else set()
            if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - allowed:
                yield f"{name} has capabilities it does not need"
            if not as_root and (own.get("runAsUser") == 0 or own.get("runAsNonRoot") is False):
                yield f"{name} container {container['name']} runs as root"
            if not as_root and any("hostPort" in port for port in container.get("ports", [])):
                yield f"{name} takes a port of its node"


def service_accounts(documents):
    """Nothing talks to the Kubernetes API, so nothing has a token for it."""
    accounts = {key(account): account for account in of_kind(documents, "ServiceAccount")}
    for account in accounts.values():
        if account.get("automountServiceAccountToken") is not False:
            yield f"{where(account)} hands out tokens"
    for workload in of_kind(documents, *WORKLOADS):
        spec = pod_spec(workload)
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{where(workload)} mounts a token"
        account = spec.get("serviceAccountName")
        if account and (key(workload)[0], account) not in accounts:
            yield f"{where(workload)}: service account {account} is not there"
    for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        for document in of_kind(documents, kind):
            yield f"{where(document)}: nothing here needs rights in Kubernetes"


def image_tags(documents):
    for _, container, name in each_container(documents):
        image = container["image"]
        tag = image.rsplit("/", 1)[-1].partition(":")[2]
        if "@sha256:" not in image and (not tag or tag == "latest"):
            yield f"{name}: image {image} names no version"


def services(documents):
    """Every Service finds pods, and every port of it one of theirs."""
    for service in of_kind(documents, "Service"):
        selector = service["spec"]["selector"]
        found = [
            workload
            for workload in of_kind(documents, *WORKLOADS)
            if key(workload)[0] == key(service)[0]
            and selector.items() <= labels_of_pods(workload).items()
        ]
        if not found:
            yield f"{where(service)} selects nothing"
        for workload in found:
            named = {
                p["name"]: p["containerPort"]
                for container in containers(workload)
                for p in container.get("ports", [])
            }
            for port in service["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                number = named.get(target, target if target in named.values() else None)
                if number is None:
                    yield f"{where(service)}: {where(workload)} has no port {target}"
                # A headless Service translates no ports: clients dial what they were told.
                elif service["spec"].get("clusterIP") == "None" and number != port["port"]:
                    yield f"{where(service)} is headless: port {port['port']} must be {number}"


def references(documents):
    """Routes, monitors, autoscalers and budgets speak of things that are there."""
    by_key = {(d["kind"], *key(d)): d for d in documents}

    def ports(namespace, name):
        service = by_key.get(("Service", namespace, name))
        return {p[k] for p in service["spec"]["ports"] for k in ("name", "port")} if service else set()

    for route in of_kind(documents, "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if backend["port"] not in ports(key(route)[0], backend["name"]):
                    yield f"{where(route)}: no {backend['name']}:{backend['port']}"
        for parent in route["spec"]["parentRefs"]:
            gateway = by_key.get(("Gateway", key(route)[0], parent["name"]))
            listeners = gateway["spec"]["listeners"] if gateway else []
            if parent["sectionName"] not in {listener["name"] for listener in listeners}:
                yield f"{where(route)}: no listener {parent['name']}/{parent['sectionName']}"
    for ingress in of_kind(documents, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if not set(backend["port"].values()) <= ports(key(ingress)[0], backend["name"]):
                    yield f"{where(ingress)}: no {backend}"
    for monitor in of_kind(documents, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        chosen = [
            service
            for service in of_kind(documents, "Service")
            if key(service)[0] == key(monitor)[0]
            and selector.items() <= service["metadata"].get("labels", {}).items()
        ]
        if not chosen:
            yield f"{where(monitor)} selects nothing"
        for service in chosen:
            for endpoint in monitor["spec"]["endpoints"]:
                if endpoint["port"] not in ports(*key(service)):
                    yield f"{where(monitor)}: {where(service)} has no port {endpoint['port']}"
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled = by_key.get((target["kind"], key(scaler)[0], target["name"]))
        if not scaled:
            yield f"{where(scaler)}: no {target['name']}"
        elif "replicas" in scaled["spec"]:
            yield f"{where(scaler)} and {where(scaled)} both set the number of replicas"
    for budget in of_kind(documents, "PodDisruptionBudget"):
        selector = budget["spec"]["selector"]["matchLabels"]
        if not any(
            selector.items() <= labels_of_pods(workload).items()
            for workload in of_kind(documents, *WORKLOADS)
            if key(workload)[0] == key(budget)[0]
        ):
            yield f"{where(budget)} selects nothing"


def availability(documents):
    """Two replicas at least, on different nodes, that are not evicted together. Nodes where none may run count for
    no spread, and a replica that is not ready keeps no node from being drained."""
    scaled = {
        (key(s)[0], s["spec"]["scaleTargetRef"]["name"]): s["spec"]["minReplicas"]
        for s in of_kind(documents, "HorizontalPodAutoscaler")
    }
    for deployment in of_kind(documents, "Deployment"):
        name, labels = where(deployment), labels_of_pods(deployment)
        replicas = scaled.get(key(deployment), deployment["spec"].get("replicas", 1))
        if replicas < 2:
            yield f"{name} has {replicas} replica"
        spread = {
            constraint["topologyKey"]
            for constraint in pod_spec(deployment).get("topologySpreadConstraints", [])
            if constraint["labelSelector"]["matchLabels"].items() <= labels.items()
        }
        if "kubernetes.io/hostname" not in spread:
            yield f"{name} does not spread over nodes"
        for constraint in pod_spec(deployment).get("topologySpreadConstraints", []):
            for policy in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
                if constraint.get(policy) != "Honor":
                    yield f"{name}: {policy} of {constraint['topologyKey']} is not Honor"
        budgets = [
            budget
            for budget in of_kind(documents, "PodDisruptionBudget")
            if key(budget)[0] == key(deployment)[0]
            and budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ]
        if not budgets:
            yield f"{name} has no PodDisruptionBudget"
        for budget in budgets:
            if budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
                yield f"{where(budget)} keeps nodes from being drained for pods that are not ready"
        drain = int(pod_spec(deployment).get("terminationGracePeriodSeconds", 30))
        if drain < 20:
            yield f"{name} has less time to stop than to drain"


def environment(documents, known):
    """Every variable is one its program knows. `known` maps a program to what its --help names."""
    maps = {key(m): m.get("data", {}) for m in of_kind(documents, "ConfigMap")}
    for workload, container, name in each_container(documents):
        program = is_ours(container)
        if program is None:
            continue
        variables = [variable["name"] for variable in container.get("env", [])]
        for source in container.get("envFrom", []):
            if "configMapRef" not in source:
                yield f"{name} takes variables from something else than a ConfigMap"
                continue
            config = maps.get((key(workload)[0], source["configMapRef"]["name"]))
            if config is None:
                yield f"{name}: ConfigMap {source['configMapRef']['name']} is not there"
            else:
                variables += config
        for variable in variables:
            if variable not in known(program):
                yield f"{name}: windlass-{program} knows no {variable}"
        for variable in {v for v in variables if variables.count(v) > 1}:
            yield f"{name} sets {variable} twice"
        port = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        for variable in container.get("env", []):
            listen = re.fullmatch(r"WINDLASS_\w+?_(HTTP_)?LISTEN", variable["name"])
            if listen:
                expected = f"0.0.0.0:{port['http' if listen.group(1) else 'grpc']}"
                if variable["value"] != expected:
                    yield f"{name}: {variable['name']} is not {expected}"


def secrets(documents):
    """Secrets come as files, each key is declared, and each _FILE variable is the path of one."""
    declared = {
        key(secret): set(secret.get("data", {})) | set(secret.get("stringData", {}))
        for secret in of_kind(documents, "Secret")
    }
    for workload in of_kind(documents, *WORKLOADS):
        namespace, name = key(workload)[0], where(workload)
        files = {}
        for volume in pod_spec(workload).get("volumes", []):
            sources = [s["secret"] for s in volume.get("projected", {}).get("sources", []) if "secret" in s]
            if "secret" in volume:
                sources.append({"name": volume["secret"]["secretName"], **volume["secret"]})
            for source in sources:
                if source.get("optional"):
                    continue
                keys = declared.get((namespace, source["name"]))
                if keys is None:
                    yield f"{name}: Secret {source['name']} is declared nowhere"
                    continue
                items = source.get("items") or [{"key": k, "path": k} for k in keys]
                for item in items:
                    if item["key"] not in keys:
                        yield f"{name}: Secret {source['name']} has no key {item['key']}"
                    files.setdefault(volume["name"], set()).add(item["path"])
        for container in containers(workload):
            mounted = {
                f"{mount['mountPath']}/{path}"
                for mount in container.get("volumeMounts", [])
                for path in files.get(mount["name"], ())
            }
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}):
                    yield f"{name}: {variable['name']} is a secret in the environment; mount a file"
                if variable["name"].endswith("_FILE"):
                    mounted_here = variable["value"] in mounted
                    if not mounted_here:
                        yield f"{name}: {variable['name']} is no mounted secret"
                    mounted.discard(variable["value"])
                elif is_ours(container) and re.search("TOKEN|PASSWORD|_URL$|SECRET", variable["name"]):
                    yield f"{name}: {variable['name']} stands in the manifest"
            if is_ours(container) and mounted:
                yield f"{name} mounts secrets it does not read: {sorted(mounted)}"


def namespaces(documents):
    """Only agents live where Pod Security allows more than "restricted"."""
    levels = {
        n["metadata"]["name"]: n["metadata"]["labels"].get("pod-security.kubernetes.io/enforce")
        for n in of_kind(documents, "Namespace")
    }
    if levels != {"windlass": "restricted", "windlass-agents": "privileged"}:
        yield f"namespaces are {levels}"
    for document in documents:
        if document["kind"] != "Namespace" and document["metadata"].get("namespace") not in levels:
            yield f"{where(document)} is in no namespace of ours"
    for workload in of_kind(documents, *WORKLOADS):
        if (key(workload)[0] == "windlass-agents") != (key(workload)[1] == "windlass-agent"):
            yield f"{where(workload)} is in the wrong namespace"


def waves(documents):
    """Argo CD applies a wave when the one before is healthy, and a hook is healthy when it has succeeded: what
    it names has to be there before. Versions change in the order of docs/operations.md."""
    for hook in documents:
        if "argocd.argoproj.io/hook" not in hook["metadata"].get("annotations", {}):
            continue
        namespace, spec = key(hook)[0], pod_spec(hook)
        needs = {("Namespace", None, namespace), ("ServiceAccount", namespace, spec.get("serviceAccountName"))}
        for volume in spec.get("volumes", []):
            for source in [volume, *volume.get("projected", {}).get("sources", [])]:
                secret = source.get("secret", {})
                needs.add(("Secret", namespace, secret.get("secretName", secret.get("name"))))
                needs.add(("ConfigMap", namespace, source.get("configMap", {}).get("name")))
        for container in containers(hook):
            for source in container.get("envFrom", []):
                needs.add(("Secret", namespace, source.get("secretRef", {}).get("name")))
                needs.add(("ConfigMap", namespace, source.get("configMapRef", {}).get("name")))
        for document in documents:
            if (document["kind"], *key(document)) in needs and wave(document) >= wave(hook):
                yield f"{where(hook)} waits for {where(document)}, which comes later"
    of_program = {
        is_ours(container): wave(workload)
        for workload in of_kind(documents, *WORKLOADS)
        for container in containers(workload)
    }
    order = [("migrate", "agent"), ("agent", "gc")]
    for coordinator in ("observer", "wc", "ttl"):
        order += [("agent", coordinator), (coordinator, "api")]
    for earlier, later in order:
        if of_program[earlier] >= of_program[later]:
            yield f"{later} does not come after {earlier}"
    # gc is ready when a host is registered, by the api: a wave before it would wait for ever.
    if of_program["gc"] < of_program["api"]:
        yield "gc comes before api, without which it is not ready"
    # A budget without pods passes for broken with some Argo CD: it comes with its pods.
    waves_of = {
        (key(workload)[0], name): wave(workload)
        for workload in of_kind(documents, *WORKLOADS)
        for name in [workload["metadata"].get("labels", {}).get("app.kubernetes.io/name")]
    }
    for budget in of_kind(documents, "PodDisruptionBudget"):
        pods = key(budget)[0], budget["spec"]["selector"]["matchLabels"].get("app.kubernetes.io/name")
        if waves_of.get(pods, wave(budget)) != wave(budget):
            yield f"{where(budget)} does not come with its pods"
    for scaler in of_kind(documents, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        for document in documents:
            scaled = (target["kind"], key(scaler)[0], target["name"])
            if (document["kind"], *key(document)) == scaled and wave(document) > wave(scaler):
                yield f"{where(scaler)} is not healthy before {where(document)}, which comes later"


def wave(document):
    return int(document["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))


SIMPLE = [
    probes, resources, restricted, service_accounts, image_tags, services, references, availability,
    secrets, namespaces, waves,
]
