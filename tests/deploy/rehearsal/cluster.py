"""Pods as processes: each a host of its own in a network of namespaces, probed and ended as a
kubelet does it.

Everything lives in the namespaces of the process that makes the cluster, which is to be the first
one in a PID namespace: when it ends, however it does, the kernel ends all of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.deploy.rehearsal import launch
from tests.deploy.rehearsal.containers import Container, Mount
from tests.deploy.rehearsal.credentials import names_of
from tests.deploy.rehearsal.pods import Ending, Pod
from tests.deploy.rendering import Object, Pods, command_of, selects

REPOSITORY = Path(__file__).parents[3]
_NETWORK = "10.77.0"
# How soon a node notices; a kubelet probes every period, which may be slower.
_LOOK_SECONDS = 0.2
# What stands for the images: the code and the environment that this process has.
IMAGE = (REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
IMAGE_ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}",
    # Two cores for all pods.
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Cluster:
    """One network of hosts, and the names of services on it.

    ``volumes``: directories behind claims and secrets by their name. ``image_content``: what images
    hold beside programs, by its path in them.
    """

    directory: Path
    services: list[Object]
    volumes: Mapping[str, Path]
    image_content: Mapping[str, Path]
    pods: list[Pod] = field(default_factory=list)
    _addresses: count[int] = field(default_factory=lambda: count(2))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        assert os.getpid() == 1, "to be run in namespaces of its own"
        self._hosts = self.directory / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n")
        _run("mount", "--bind", str(self._hosts), "/etc/hosts")
        Path("/run/netns").mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        _ip("link", "add", "node", "type", "bridge")
        _ip("addr", "add", f"{_NETWORK}.1/24", "dev", "node")
        for name in ("node", "lo"):
            _ip("link", "set", name, "up")
        threading.Thread(target=self._look_after, daemon=True).start()

    def start(
        self,
        template: Pods,
        name: str,
        *,
        given: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: Mapping[str, str] | None = None,
    ) -> Pod:
        """Starts a pod.

        ``given``: variables that a controller adds. ``environment``, ``arguments``: values of its
        variables and options that are to be others than the manifest's, by their names.
        """
        number = next(self._addresses)
        address = f"{_NETWORK}.{number}"
        _ip("netns", "add", name)
        _ip("link", "add", f"veth{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"veth{number}", "master", "node", "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", name, "link", "set", device, "up")
        log_file = self.directory / f"{name}.log"

        def run(raw: Object) -> subprocess.Popen[bytes]:
            container = Container(template, raw)
            variables = container.environment(
                {**IMAGE_ENVIRONMENT, **(given or {})}, environment or {}
            )
            command = _changed(command_of(raw, variables), arguments or {})
            return self._run(container, name, command, variables, log_file)

        *before, serving = template.containers
        for each in before:
            assert run(each).wait(60) == 0, log_file.read_text()
        pod = Pod(name, address, template, run(serving), log_file)
        with self._lock:
            self.pods.append(pod)
        self._publish()
        return pod

    def _run(
        self,
        container: Container,
        pod: str,
        command: list[str],
        environment: Mapping[str, str],
        log_file: Path,
    ) -> subprocess.Popen[bytes]:
        user, group = container.user
        root = self.directory / f"{pod}.root"
        root.mkdir(exist_ok=True)
        spec = {
            "root": str(root),
            "hostname": pod,
            "hosts": str(self._hosts),
            "shown": [str(path) for path in IMAGE],
            "mounts": [
                *(
                    (str(self._source(pod, each, user, group)), each.path, each.read_only)
                    for each in container.mounts()
                ),
                *((str(source), path, True) for path, source in self.image_content.items()),
            ],
            "user": user,
            "group": group,
            "read_only_root": container.has_read_only_root,
            "command": command,
            "environment": environment,
        }
        file = self.directory / f"{pod}.json"
        file.write_text(json.dumps(spec))
        with log_file.open("ab") as log:
            return subprocess.Popen(
                [
                    *("ip", "netns", "exec", pod),
                    *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"),
                    *(sys.executable, launch.__file__, str(file)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def await_ready(self, pod: Pod) -> float:
        """Until its startup and readiness probes answer, within what the startup probe bears."""
        began = time.monotonic()
        probe = pod.container.probe("startup") or pod.container.probe("readiness")
        assert probe is not None
        while not pod.is_ready:
            assert pod.is_running, pod.log
            assert time.monotonic() - began < probe.patience, pod.log
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - began

    def delete(self, pod: Pod) -> Ending:
        """SIGTERM to its first process, and SIGKILL to what is left when its grace is over."""
        pod.is_ending = True
        self._publish()
        began = time.monotonic()
        time.sleep(pod.container.pre_stop_sleep)
        # It may have ended by itself.
        with suppress(IndexError, OSError):
            os.kill(pod.main_process(), signal.SIGTERM)
        killed = False
        try:
            grace = pod.template.spec["terminationGracePeriodSeconds"]
            status = pod.process.wait(grace - (time.monotonic() - began))
        except subprocess.TimeoutExpired:
            killed = True
            pod.process.kill()
            status = pod.process.wait()
        with self._lock:
            self.pods.remove(pod)
        self._publish()
        _ip("netns", "del", pod.name)
        return Ending(time.monotonic() - began, killed, status)

    def kill(self, pod: Pod) -> None:
        """As when its node is lost."""
        pod.is_ending = True
        pod.process.kill()
        pod.process.wait()
        with self._lock:
            self.pods.remove(pod)
        self._publish()
        _ip("netns", "del", pod.name)

    def _source(self, pod: str, mount: Mount, user: int, group: int) -> Path:
        """The directory behind a volume."""
        for kind, key in (("persistentVolumeClaim", "claimName"), ("secret", "secretName")):
            if key in mount.volume.get(kind, ()):
                return self.volumes[mount.volume[kind][key]]
        assert mount.volume.keys() & {"emptyDir", "persistentVolumeClaim"}, mount
        # What a StatefulSet claims outlives the pod, as this directory does.
        own = self.directory / f"{pod}.{mount.name}"
        own.mkdir(exist_ok=True)
        os.chown(own, user, group)
        return own

    def _look_after(self) -> None:
        while True:
            with self._lock:
                pods = list(self.pods)
            for pod in pods:
                probe = pod.container.probe("readiness")
                ready = pod.is_running and (probe is None or pod.answers(probe))
                if ready != pod.is_ready:
                    pod.is_ready = ready
                    self._publish()
            time.sleep(_LOOK_SECONDS)

    def _publish(self) -> None:
        """Gives the names of services to the pods that are behind them now."""
        lines = ["127.0.0.1 localhost"]
        with self._lock:
            for service in self.services:
                names = " ".join(names_of(service["metadata"]["name"]))
                is_early = service["spec"].get("publishNotReadyAddresses", False)
                for pod in self.pods:
                    selected = selects(service["spec"]["selector"], pod.template.labels)
                    if selected and (is_early or pod.is_ready) and not pod.is_ending:
                        lines.append(f"{pod.address} {names}")
            for pod in self.pods:
                lines.append(f"{pod.address} {pod.name}")
            # In place: the node and the containers have the file itself mounted.
            self._hosts.write_text("\n".join(lines) + "\n")


def _changed(command: list[str], arguments: Mapping[str, str]) -> list[str]:
    """Options as ``--name=value`` with other values."""
    changed = []
    missing = set(arguments)
    for word in command:
        name, equals, _ = word.partition("=")
        if equals and name in arguments:
            missing.discard(name)
            word = f"{name}={arguments[name]}"
        changed.append(word)
    assert not missing, f"{missing} are not in {command}"
    return changed


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
