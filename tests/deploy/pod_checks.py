"""What is wrong with the pods of a rendering, each by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from executor.agent.server import LIVENESS as EXECUTOR_LIVENESS
from executor.agent.server import READINESS
from executor.agent.shutdown import FAREWELL_SECONDS
from planner.listening.sockets import LIVENESS as PLANNER_LIVENESS
from planner.settings import Timing
from tests.deploy.commands import Misuse, options, torchrun
from tests.deploy.rendering import Object, Pods, pods

# Of each secret, what it holds.
SECRETS = {
    "planner-tls": {"tls.crt", "tls.key", "ca.crt"},
    "dispatch-tls": {"tls.crt", "tls.key", "ca.crt"},
    "executor-tls": {"tls.crt", "tls.key", "ca.crt"},
    "ditplan-tokens": {"tokens.yaml"},
    "front-token": {"token"},
    "executor-token": {"token"},
}
# By restricted and a read-only root: what else a container may write to is nobody's.
VOLUMES = {"emptyDir", "secret", "persistentVolumeClaim"}
# Variables that libraries read, and where: a package and its file.
_READ = {
    "HF_HOME": ("huggingface_hub", "constants.py"),
    "HF_HUB_OFFLINE": ("huggingface_hub", "constants.py"),
    "OMP_NUM_THREADS": ("torch", "distributed/run.py"),
    "TORCHINDUCTOR_CACHE_DIR": ("torch", "_inductor/runtime/cache_dir_utils.py"),
    "TRITON_CACHE_DIR": ("torch", "_inductor/runtime/triton_heuristics.py"),
}
# Of a group's ranks, what only rank 0 does.
_OF_RANK_0 = {"listen", "metrics_listen", "drain_seconds", "ca", "certificate", "key"}
_OF_RANK_0 |= {"token_file", "insecure"}
_UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
_USER = 10001


def quantity(text: str | int) -> float:
    match = re.fullmatch(r"(\d+)(|m|Ki|Mi|Gi)", str(text))
    assert match, f"{text!r} is no quantity that this test knows"
    return int(match[1]) * _UNITS[match[2]]


def check_command(objects: list[Object]) -> Iterator[str]:
    """The commands themselves parse what they are given, and find it sound."""
    for each in pods(objects):
        yield from (f"{each.name}: {word} is no variable" for word in each.command if "$(" in word)
        try:
            options(each)
        except Misuse as misuse:
            yield f"{each.name}: {misuse}"


def check_variables(objects: list[Object]) -> Iterator[str]:
    """Somebody reads every variable: the command line or a library."""
    for each in pods(objects):
        words = " ".join([*each.container["command"], *each.container["args"]])
        for name in {of["name"] for of in each.container.get("env", ())}:
            # The shell's own is read by everyone.
            if name != "HOME" and f"$({name})" not in words and not _is_read(name):
                yield f"{each.name}: nobody reads {name}"


def _is_read(name: str) -> bool:
    package, file = _READ.get(name, ("", ""))
    found = find_spec(package) if package else None
    return bool(found and found.origin and name in (Path(found.origin).parent / file).read_text())


def check_ranks(objects: list[Object]) -> Iterator[str]:
    """All ranks of a group are started alike, as often as the group has nodes, and never alone."""
    for each in pods(objects):
        if each.group != "worker":
            continue
        (leader,) = (of for of in pods(objects) if of.owner is each.owner and of.group == "leader")
        for name, value in options(leader).items():
            if name not in _OF_RANK_0 and options(each)[name] != value:
                yield f"{each.name}: {name} is {options(each)[name]}, of the leader {value}"
        if each.container["command"] != leader.container["command"]:
            yield f"{each.name}: is launched otherwise"
        if each.container["env"] != leader.container["env"]:
            yield f"{each.name}: has other variables"
        if each.container["resources"] != leader.container["resources"]:
            yield f"{each.name}: has other resources"
        launch = torchrun(leader)
        size = each.owner["spec"]["leaderWorkerTemplate"]["size"]
        assert launch is not None
        # c10d gives rank 0 to whichever node's name comes first.
        if launch.rdzv_backend != "static" or launch.max_restarts or int(launch.nnodes) != size:
            yield f"{each.name}: launched by {launch.rdzv_backend} as one of {launch.nnodes}"


def check_ports(objects: list[Object]) -> Iterator[str]:
    """A container's ports are what its options listen on, for all to dial."""
    for each in pods(objects):
        given, launch = options(each), torchrun(each)
        listens = {"metrics": given["metrics_listen"]}
        if launch is None:
            listens["grpc"], listens["health"] = given["listen"], given["health_listen"]
            listens["scaler"] = given.get("scaler_listen")
        elif each.group != "worker":
            listens["health"] = given["listen"]
        if each.group == "leader":
            assert launch is not None
            listens["rendezvous"] = f"0.0.0.0:{launch.rdzv_endpoint.rpartition(':')[2]}"
        wanted = {name: address for name, address in listens.items() if address}
        found = {name: f"0.0.0.0:{port}" for name, port in each.ports.items()}
        if found != wanted:
            yield f"{each.name}: has ports {found}, listens on {wanted}"


def check_probes(objects: list[Object]) -> Iterator[str]:
    """They ask the health port for services that it knows."""
    for each in pods(objects):
        executes = torchrun(each) is not None
        liveness = EXECUTOR_LIVENESS if executes else PLANNER_LIVENESS
        services = {"startup": READINESS, "readiness": READINESS, "liveness": liveness}
        for kind, service in services.items():
            probe = each.container.get(f"{kind}Probe")
            if each.group == "worker":
                if probe is not None:
                    yield f"{each.name}: nobody answers its {kind} probe"
            elif probe is None:
                yield f"{each.name}: has no {kind} probe"
            elif probe.get("grpc") != {"port": each.ports["health"], "service": service}:
                yield f"{each.name}: {kind} probe asks {probe.get('grpc')}"


def check_grace(objects: list[Object]) -> Iterator[str]:
    """A process ends by itself before torchrun would kill it, and that before the kubelet would."""
    for each in pods(objects):
        grace = each.spec["terminationGracePeriodSeconds"]
        launch = torchrun(each)
        if launch is None:
            waits = each.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
            needed = waits.get("seconds", 0) + 3 * Timing().stop_grace
        else:
            drain = _leader(objects, each)["drain_seconds"] + 2 * FAREWELL_SECONDS
            if launch.shutdown_timeout <= drain:
                yield f"{each.name}: torchrun kills after {launch.shutdown_timeout} s of {drain}"
            needed = launch.shutdown_timeout
        if grace <= needed:
            yield f"{each.name}: is killed after {grace} s, takes {needed}"


def _leader(objects: list[Object], follower: Pods) -> dict[str, float]:
    """The options of what leads its ranks."""
    (leader,) = (
        each for each in pods(objects) if each.owner is follower.owner and each.group != "worker"
    )
    return options(leader)


def check_resources(objects: list[Object]) -> Iterator[str]:
    """Requests are within limits, and so is what volumes, ranks and threads take of them."""
    for each in pods(objects):
        for container in each.containers:
            limits, requests = (container["resources"][of] for of in ("limits", "requests"))
            for name in ("cpu", "memory"):
                if name not in limits or name not in requests:
                    yield f"{each.name} {container['name']}: no {name}"
            for name, requested in requests.items():
                if quantity(requested) > quantity(limits[name]):
                    yield f"{each.name} {container['name']}: {name} beyond its limit"
        limits = each.container["resources"]["limits"]
        # A pod may use the most of what its first containers and what the others may.
        disk = max(
            quantity(of["resources"]["limits"]["ephemeral-storage"])
            for of in each.containers
            if "ephemeral-storage" in of["resources"]["limits"]
        )
        if _sizes(each, "Memory") >= quantity(limits["memory"]):
            yield f"{each.name}: volumes take all of its memory"
        if _sizes(each, "") >= disk:
            yield f"{each.name}: volumes take all of its disk"
        ranks = int(each.variables.get("RANKS", 1))
        if ranks * int(each.variables.get("OMP_NUM_THREADS", 0)) > quantity(limits["cpu"]):
            yield f"{each.name}: more threads than cores"
        if "nvidia.com/gpu" in limits and int(limits["nvidia.com/gpu"]) != ranks:
            yield f"{each.name}: {ranks} ranks, {limits['nvidia.com/gpu']} GPUs"


def _sizes(each: Pods, medium: str) -> float:
    volumes = (of["emptyDir"] for of in each.volumes.values() if "emptyDir" in of)
    return sum(quantity(of["sizeLimit"]) for of in volumes if of.get("medium", "") == medium)


def check_restricted(objects: list[Object]) -> Iterator[str]:
    """Pods meet "restricted", with a read-only root and without a token of Kubernetes."""
    for each in pods(objects):
        context = each.spec["securityContext"]
        of_pod = ("runAsUser", "runAsGroup", "fsGroup")
        if any(context[key] != _USER for key in of_pod) or not context["runAsNonRoot"]:
            yield f"{each.name}: runs as someone else"
        if context["seccompProfile"] != {"type": "RuntimeDefault"}:
            yield f"{each.name}: seccomp"
        if each.spec["automountServiceAccountToken"] is not False:
            yield f"{each.name}: has a token of Kubernetes"
        if any(each.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{each.name}: shares its host's namespaces"
        for container in each.containers:
            if container["securityContext"] != {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }:
                yield f"{each.name} {container['name']}: {container['securityContext']}"
        for name, volume in each.volumes.items():
            if len(set(volume) - {"name"} - VOLUMES):
                yield f"{each.name}: volume {name} is {set(volume) - {'name'}}"


def check_files(objects: list[Object]) -> Iterator[str]:
    """Paths in arguments and variables are on volumes, secrets have the keys that are named."""
    for each in pods(objects):
        mounts = {mount["mountPath"]: mount for mount in each.container["volumeMounts"]}
        mounted = {mount["name"] for of in each.containers for mount in of["volumeMounts"]}
        if mounted != set(each.volumes):
            yield f"{each.name}: mounts {mounted}, has {set(each.volumes)}"
        words = [*each.command, *(f"={value}" for value in each.variables.values())]
        for path in (Path(word.partition("=")[2]) for word in words):
            if not path.is_absolute():
                continue
            above = [mount for mount in mounts if path.is_relative_to(mount)]
            if not above:
                yield f"{each.name}: nothing is mounted at {path}"
                continue
            secret = each.volumes[mounts[above[0]]["name"]].get("secret")
            if secret and path.name not in SECRETS[secret["secretName"]]:
                yield f"{each.name}: secret {secret['secretName']} has no {path.name}"
        for mount in mounts.values():
            volume = each.volumes[mount["name"]]
            if "secret" in volume and volume["secret"]["defaultMode"] & 0o007:
                yield f"{each.name}: everyone can read {mount['mountPath']}"
            writable = volume.get("emptyDir") is not None or mount["name"] == "data"
            if not writable and not mount.get("readOnly"):
                yield f"{each.name}: {mount['mountPath']} can be written"
            if "subPath" in mount:
                yield f"{each.name}: {mount['mountPath']} would not follow its secret"
