#!/usr/bin/env python3
"""Runs compose.yaml with plain docker, where docker compose is missing.

It knows the keys that our files use, and refuses every other one: what runs here is what compose would run.

    compose.py -p PROJECT -f FILE [-f FILE ...] up|down|logs
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

import yaml

SERVICE_KEYS = {
    "image", "restart", "read_only", "cap_drop", "cap_add", "security_opt", "stop_grace_period",
    "depends_on", "environment", "volumes", "command", "entrypoint", "ports", "user",
}
LABEL = "com.docker.compose.project"


class Unknown(Exception):
    pass


def docker(*arguments, check=True, capture=True):
    done = subprocess.run(["docker", *arguments], text=True, capture_output=capture, check=False)
    if check and done.returncode:
        raise SystemExit(f"docker {' '.join(arguments[:3])} ...: {(done.stderr or '').strip()}")
    return (done.stdout or "").strip()


def interpolate(value, environment):
    if isinstance(value, dict):
        return {k: interpolate(v, environment) for k, v in value.items()}
    if isinstance(value, list):
        return [interpolate(v, environment) for v in value]
    if not isinstance(value, str):
        return value

    def one(match):
        name, operator, word = match.group(1), match.group(2), match.group(3)
        given = environment.get(name, "")
        if given:
            return given
        if operator == ":?":
            raise SystemExit(f"{name} is not set: {word}")
        return word or ""

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", one, value)


def merge(under, over):
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{k: merge(under[k], v) if k in under else v for k, v in over.items()}}
    return over


def load(files, environment):
    whole = {}
    for path in files:
        whole = merge(whole, yaml.safe_load(pathlib.Path(path).read_text()))
    for key in whole:
        if key not in ("services", "volumes") and not key.startswith("x-"):
            raise Unknown(key)
    for name, service in whole["services"].items():
        for key in service.keys() - SERVICE_KEYS:
            raise Unknown(f"services.{name}.{key}")
    for name, volume in (whole.get("volumes") or {}).items():
        if volume:
            raise Unknown(f"volumes.{name} with options")
    return interpolate({k: whole[k] for k in ("services", "volumes")}, environment)


def order(services):
    """Services after those they depend on."""
    done = []

    def visit(name, path=()):
        if name in path:
            raise SystemExit(f"{name} depends on itself")
        for other in services[name].get("depends_on", {}):
            visit(other, (*path, name))
        if name not in done:
            done.append(name)

    for name in services:
        visit(name)
    return done


def run_arguments(project, name, service, volumes):
    yield from ("--name", f"{project}-{name}-1", "--network", f"{project}_default", "--network-alias", name)
    yield from ("--label", f"{LABEL}={project}", "--label", f"com.docker.compose.service={name}")
    for key, value in service.get("environment", {}).items():
        yield from ("--env", f"{key}={value}")
    for volume in service.get("volumes", []):
        source, _, target = volume.partition(":")
        yield from ("--volume", f"{project}_{source}:{target}" if source in volumes else volume)
    for port in service.get("ports", []):
        yield from ("--publish", port)
    for flag, key in (("--cap-drop", "cap_drop"), ("--cap-add", "cap_add"), ("--security-opt", "security_opt")):
        for value in service.get(key, []):
            yield from (flag, value)
    if service.get("read_only"):
        yield "--read-only"
    if "user" in service:
        yield from ("--user", service["user"])
    if "restart" in service:
        yield from ("--restart", service["restart"])
    if "stop_grace_period" in service:
        yield from ("--stop-timeout", service["stop_grace_period"].removesuffix("s"))


def wait_for(project, name, condition):
    container = f"{project}-{name}-1"
    if condition == "service_started":
        return
    if condition != "service_completed_successfully":
        raise Unknown(f"depends_on condition {condition}")
    code = docker("wait", container)
    if code != "0":
        logs = subprocess.run(["docker", "logs", container], text=True, capture_output=True, check=False)
        raise SystemExit(f"{name} ended with {code}:\n{logs.stdout}{logs.stderr}")


def up(project, compose):
    services, volumes = compose["services"], compose.get("volumes") or {}
    docker("network", "create", "--label", f"{LABEL}={project}", f"{project}_default")
    for volume in volumes:
        docker("volume", "create", "--label", f"{LABEL}={project}", f"{project}_{volume}")
    for name in order(services):
        service = services[name]
        for other, how in service.get("depends_on", {}).items():
            wait_for(project, other, how["condition"])
        entrypoint, command = service.get("entrypoint", []), service.get("command", [])
        extra = ["--entrypoint", entrypoint[0]] if entrypoint else []
        docker(
            "run", "--detach", *run_arguments(project, name, service, volumes), *extra,
            service["image"], *entrypoint[1:], *command,
        )


def down(project):
    """Removes what carries the project's label, and nothing else."""
    mine = ("--filter", f"label={LABEL}={project}", "--quiet")
    running = docker("ps", *mine).split()
    if running:
        docker("stop", *running)
    containers = docker("ps", "--all", *mine).split()
    if containers:
        docker("rm", "--force", "--volumes", *containers)
    for kind in ("network", "volume"):
        found = docker(kind, "ls", *mine).split()
        for _ in range(20):
            if not found or not subprocess.run(["docker", kind, "rm", *found], capture_output=True, check=False).returncode:
                break
            time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-p", "--project", required=True)
    parser.add_argument("-f", "--file", action="append", required=True)
    parser.add_argument("action", choices=["up", "down", "logs"])
    arguments = parser.parse_args()
    if arguments.action == "down":
        down(arguments.project)
    elif arguments.action == "logs":
        compose = load(arguments.file, os.environ)
        for name in compose["services"]:
            print(f"--- {name}", flush=True)
            docker("logs", "--tail", "40", f"{arguments.project}-{name}-1", check=False, capture=False)
    else:
        try:
            up(arguments.project, load(arguments.file, os.environ))
        except Unknown as key:
            sys.exit(f"compose.py does not know {key}: teach it, or use docker compose")


if __name__ == "__main__":
    main()
