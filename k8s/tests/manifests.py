"""What kustomize makes of the overlays, and how to look into it."""

import functools
import os
import pathlib
import shutil
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "prod")
SECRETS_EXAMPLE = "prod/secrets-example"

WORKLOADS = ("Deployment", "DaemonSet", "StatefulSet", "Job")
# Custom resources: Kubernetes' own schemas do not know them. Policies look at them instead.
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("gateway.networking.k8s.io/v1", "GRPCRoute"),
}


def kustomize_command():
    """KUSTOMIZE is set by the recipe; without it, whatever is installed."""
    given = os.environ.get("KUSTOMIZE")
    if given:
        return given.split()
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            return command
    raise RuntimeError("neither kubectl nor kustomize is installed: run `./dev k8s-check`")


@functools.cache
def render(folder):
    """The documents of a folder below k8s/, as kustomize builds them. Callers must not change them."""
    built = subprocess.run(
        [*kustomize_command(), str(K8S / folder)], capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise RuntimeError(f"kustomize cannot build {folder}: {built.stderr}")
    # kustomize warns of what later versions refuse, so a warning is a failure.
    if built.stderr.strip():
        raise RuntimeError(f"kustomize on {folder}: {built.stderr}")
    return [document for document in yaml.safe_load_all(built.stdout) if document]


def overlay(name):
    return render(f"overlays/{name}")


def with_secrets(name):
    """An overlay and the Secrets that it expects to be there."""
    extra = overlay(SECRETS_EXAMPLE) if name == "prod" else []
    return overlay(name) + extra


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def pod_spec(workload):
    return workload["spec"]["template"]["spec"]


def containers(workload):
    spec = pod_spec(workload)
    return spec.get("initContainers", []) + spec["containers"]


def labels_of_pods(workload):
    return workload["spec"]["template"]["metadata"].get("labels", {})


def where(document):
    metadata = document["metadata"]
    return f"{document['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"


def key(document):
    return document["metadata"].get("namespace"), document["metadata"]["name"]


def is_ours(container):
    """Whether an image is one of Windlass, and of which program."""
    repository = container["image"].rsplit(":", 1)[0]
    parts = repository.split("/")
    return parts[-1] if len(parts) > 1 and parts[-2] == "windlass" else None
