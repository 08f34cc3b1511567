"""The life of a workspace against the system as its images make it: created, written to, stopped, archived,
brought back, compared, deleted. The client is the image of the command line, on the system's own network.
`--load` measures what the services use while many workspaces go through theirs."""

import concurrent.futures
import json
import os
import pathlib
import re
import secrets
import shlex
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN = f"windlass-smoke-{secrets.token_hex(3)}"
TAG = os.environ.get("TAG", "0.1.0")
FILES = [str(ROOT / "compose.yaml"), str(ROOT / "k8s/images/offline.compose.yaml")]
HTTP = {"api": 7500, "agent": 7501, "observer": 7502, "wc": 7503, "ttl": 7504, "gc": 7505}

# A home with what is easily lost: modes, links, times, an empty folder, odd names, a hole, a file of size.
FILL = r"""
cd /home/coder && umask 022 && mkdir -p src/deep/er empty ".odd 'name'" && echo hello > src/a.txt
printf '#!/bin/sh\necho run\n' > src/run.sh && chmod 750 src/run.sh && ln -s ../a.txt src/deep/link
ln src/a.txt src/hard && ln -s /nowhere dangling && printf 'x\ny' > ".odd 'name'/new
line" && chmod 2770 src/deep && chmod 000 src/hard && chmod 644 src/hard
dd if=/dev/urandom of=big bs=64k count=64 2>/dev/null && dd if=/dev/zero of=hole bs=1 count=1 seek=8388607 2>/dev/null
touch -d '2001-02-03 04:05:06' src/a.txt
"""
INVENTORY = r"""
cd /home/coder && find . | sort | while IFS= read -r f; do stat -c '%n %F %a %u:%g %Y %s %h %N' "$f"; done
find . -type f -print0 | sort -z | xargs -0 sha256sum
"""


def say(text):
    print(f"smoke: {text}", flush=True)


class Failed(Exception):
    pass


def run(*command, check=True, env=None, timeout=600):
    done = subprocess.run(
        command, text=True, capture_output=True, check=False, timeout=timeout,
        env={**os.environ, **(env or {})},
    )
    if check and done.returncode:
        raise Failed(f"{shlex.join(command[:12])} ...: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout.strip()


def docker(*arguments, **keywords):
    return run("docker", *arguments, **keywords)


class System:
    def __init__(self):
        data = docker("info", "--format", "{{.DockerRootDir}}")
        socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not socket.startswith("unix://"):
            raise Failed("the agent works on the engine's volumes folder, so the engine has to be on this machine")
        self.admin, self.service = secrets.token_hex(16), secrets.token_hex(16)
        self.prefix = f"{RUN}-ws-"
        self.env = {
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "WINDLASS_ROLE_PASSWORD": secrets.token_hex(16),
            "WINDLASS_ADMIN_TOKEN": self.admin,
            "WINDLASS_SERVICE_TOKEN": self.service,
            "S3_SECRET_KEY": secrets.token_hex(16),
            "WINDLASS_VERSION": TAG,
            "WINDLASS_PREFIX": self.prefix,
            "WINDLASS_DEFAULT_IMAGE": "windlass-offline/workspace:1",
            "WINDLASS_MAX_RUNNING_PER_USER": "100",
            "WINDLASS_MAX_WORKSPACES_PER_USER": "100",
            # Any free port of loopback.
            "WINDLASS_PORT": "0",
            "DOCKER_SOCKET": socket.removeprefix("unix://"),
            "DOCKER_VOLUMES": f"{data}/volumes",
        }
        files = [argument for path in FILES for argument in ("-f", path)]
        real = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if real.returncode == 0:
            self.compose = ["docker", "compose", "-p", RUN, *files]
            self.start, self.stop = ["up", "--detach"], ["down", "--volumes"]
        else:
            say("docker compose is missing: compose.yaml is run by k8s/images/compose.py")
            self.compose = [sys.executable, str(ROOT / "k8s/images/compose.py"), "-p", RUN, *files]
            self.start, self.stop = ["up"], ["down"]

    def up(self):
        run(*self.compose, *self.start, env=self.env)

    def down(self):
        """Workspaces first, by the prefix of this run; the rest by its label."""
        containers = docker("ps", "--all", "--quiet", "--filter", f"name={self.prefix}", check=False).split()
        if containers:
            docker("rm", "--force", *containers, check=False)
        volumes = docker("volume", "ls", "--quiet", "--filter", f"name={self.prefix}", check=False).split()
        if volumes:
            docker("volume", "rm", "--force", *volumes, check=False)
        run(*self.compose, *self.stop, env=self.env, check=False)

    def logs(self):
        subprocess.run([*self.compose, "logs"], env={**os.environ, **self.env}, check=False)

    def cli(self, *arguments, check=True):
        """The command line, from its image, as a user of the network."""
        addresses = {"ADDR": 7400, "AGENT_ADDR": 7401, "OBSERVER_ADDR": 7402, "WC_ADDR": 7403, "TTL_ADDR": 7404, "GC_ADDR": 7405}
        names = {"ADDR": "api"}
        env = {
            f"WINDLASS_{variable}": f"http://{names.get(variable, variable.removesuffix('_ADDR').lower())}:{port}"
            for variable, port in addresses.items()
        }
        env |= {"WINDLASS_TOKEN": self.admin, "WINDLASS_SERVICE_TOKEN": self.service}
        given = [argument for item in env.items() for argument in ("--env", "=".join(item))]
        return docker(
            "run", "--rm", "--read-only", "--network", f"{RUN}_default", "--label", f"com.docker.compose.project={RUN}",
            *given, f"windlass/cli:{TAG}", *arguments, check=check,
        )

    def workspace(self, *arguments):
        return json.loads(self.cli("-o", "json", "workspace", *arguments))

    def readyz(self, service):
        """Asked from inside the network, with the workspace image's wget."""
        return docker(
            "run", "--rm", "--network", f"{RUN}_default", "--label", f"com.docker.compose.project={RUN}",
            "windlass-offline/workspace:1", "wget", "-q", "-O", "-", f"http://{service}:{HTTP[service]}/readyz", check=False,
        )

    def wait_ready(self):
        end, waiting = time.monotonic() + 120, dict.fromkeys(HTTP)
        while waiting:
            for service in list(waiting):
                # wget fails on a 503, and prints nothing then.
                if self.readyz(service):
                    del waiting[service]
            if waiting and time.monotonic() > end:
                raise Failed(f"not ready after 2 minutes: {', '.join(waiting)}")
            time.sleep(0.5)

    def stats(self):
        """Per cent of a core and MiB of each service, now."""
        units = {"B": 2**-20, "KiB": 2**-10, "MiB": 1, "GiB": 1024}
        lines = docker(
            "stats", "--no-stream", "--format", "{{.CPUPerc}} {{.MemUsage}}",
            *(f"{RUN}-{service}-1" for service in HTTP),
        ).splitlines()
        found = {}
        for service, line in zip(HTTP, lines, strict=True):
            cpu, memory = line.split()[:2]
            number, unit = re.fullmatch(r"([\d.]+)(\w+)", memory).groups()
            found[service] = (float(cpu.rstrip("%")), float(number) * units[unit])
        return found

    def peaks(self):
        """The most MiB of each service that were resident: what counts for a limit, without the page cache."""
        found = {}
        for service in HTTP:
            pid = docker("inspect", "--format", "{{.State.Pid}}", f"{RUN}-{service}-1")
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            found[service] = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024
        return found

    def usage(self, title):
        for service, (cpu, memory) in self.stats().items():
            say(f"{title}: {service} {cpu:.1f} % of a core, {memory:.1f} MiB")


def expect(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what}: {found!r} instead of {wanted!r}")
    say(f"{what}: ok")


def life(system):
    workspace = system.workspace("create", "smoke", "--timeout", "2m")
    expect("created", workspace["phase"], "PHASE_RUNNING")
    container, volume = f"{system.prefix}{workspace['id']}", f"{system.prefix}{workspace['id']}-home"

    def shell(script):
        return docker("exec", container, "/bin/sh", "-c", script)

    def volumes():
        return docker("volume", "ls", "--quiet", "--filter", f"name={volume}")

    shell(FILL)
    before = shell(INVENTORY)
    if len(before.splitlines()) < 15:
        raise Failed(f"the home was not filled:\n{before}")

    expect("stopped", system.workspace("stop", "smoke", "--timeout", "2m")["phase"], "PHASE_STANDBY")
    archived = system.workspace("archive", "smoke", "--timeout", "5m")
    expect("archived", archived["phase"], "PHASE_ARCHIVED")
    expect("the volume is gone", volumes(), "")
    expect("one archive", len(json.loads(system.cli("-o", "json", "workspace", "archives", "smoke"))), 1)
    system.usage("after an archive")

    expect("started", system.workspace("start", "smoke", "--timeout", "5m")["phase"], "PHASE_RUNNING")
    expect("the home is what it was", shell(INVENTORY), before)

    system.cli("workspace", "delete", "smoke", "--yes", "--timeout", "5m")
    expect("deleted", json.loads(system.cli("-o", "json", "workspace", "list")), [])
    expect("nothing of it is left here", (volumes(), docker("ps", "-aq", "--filter", f"name={container}")), ("", ""))


def load(system, workspaces=20, megabytes=64):
    """What the manifests' requests and limits are based on: the largest use while this many workspaces are
    created, archived, brought back and deleted at the same time."""
    most = {service: [0.0, 0.0] for service in HTTP}
    done = threading.Event()

    def sample():
        while not done.is_set():
            for service, (cpu, memory) in system.stats().items():
                most[service] = [max(most[service][0], cpu), max(most[service][1], memory)]

    def one(number):
        name = f"load-{number}"
        made = system.workspace("create", name, "--timeout", "10m")
        container = f"{system.prefix}{made['id']}"
        docker("exec", container, "dd", "if=/dev/urandom", "of=/home/coder/big", "bs=1M", f"count={megabytes}")
        for step in (["archive", name], ["start", name], ["delete", name, "--yes"]):
            system.cli("workspace", *step, "--timeout", "20m", *(["--discard-home"] if step[0] == "delete" else []))

    sampler = threading.Thread(target=sample)
    sampler.start()
    began = time.monotonic()
    try:
        with concurrent.futures.ThreadPoolExecutor(workspaces) as pool:
            list(pool.map(one, range(workspaces)))
    finally:
        done.set()
        sampler.join()
    say(f"{workspaces} workspaces of {megabytes} MiB, created, archived, started, deleted: {time.monotonic() - began:.0f} s")
    peaks = system.peaks()
    for service, (cpu, memory) in most.items():
        say(
            f"under load, at most: {service} {cpu:.1f} % of a core, {peaks[service]:.1f} MiB resident, "
            f"{memory:.1f} MiB with page cache"
        )


def users_are_what_they_should_be():
    for program in (*HTTP, "migrate", "cli"):
        user = docker("image", "inspect", "--format", "{{.Config.User}}", f"windlass/{program}:{TAG}")
        wanted = "0:0" if program == "agent" else "65532:65532"
        if user != wanted:
            raise Failed(f"windlass/{program} runs as {user}")
    say("images: nobody is root but the agent")


def main():
    system = System()
    try:
        users_are_what_they_should_be()
        system.up()
        system.wait_ready()
        say("every service is ready")
        print(system.cli("doctor", check=False), flush=True)
        time.sleep(5)
        system.usage("idle")
        life(system)
        if "--load" in sys.argv[1:]:
            load(system)
        say("passed")
    except (Failed, subprocess.TimeoutExpired) as why:
        say(f"FAILED: {why}")
        system.logs()
        sys.exit(1)
    finally:
        system.down()


if __name__ == "__main__":
    main()
