"""What rendered manifests say of pods: the parts that a kubelet acts on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_POD_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "LeaderWorkerSet": ("spec", "leaderWorkerTemplate", "workerTemplate"),
}


_DOMAINS = ("", ".ditplan", ".ditplan.svc", ".ditplan.svc.cluster.local")


def names_of(service: str) -> list[str]:
    """What a service can be called by."""
    return [service + domain for domain in _DOMAINS]


@dataclass(frozen=True)
class Probe:
    """A gRPC probe; bounds in seconds."""

    port: int
    service: str
    period: float
    timeout: float
    failures: int

    @property
    def patience(self) -> float:
        return self.period * self.failures


@dataclass(frozen=True)
class Mount:
    """Where what is mounted; ``volume`` as the pod declares it."""

    path: str
    volume: Mapping[str, Any]
    read_only: bool


class Container:
    """One container of a pod; ``raw`` is it as it was rendered."""

    def __init__(self, raw: Mapping[str, Any], pod: Mapping[str, Any]) -> None:
        self.raw = raw
        self._pod = pod

    @property
    def user(self) -> tuple[int, int]:
        security = {**self._pod["securityContext"], **self.raw.get("securityContext", {})}
        assert security["runAsNonRoot"] is True
        return security["runAsUser"], security["runAsGroup"]

    @property
    def has_read_only_root(self) -> bool:
        return self.raw["securityContext"]["readOnlyRootFilesystem"] is True

    @property
    def pre_stop_sleep(self) -> float:
        """Seconds between the end's beginning and SIGTERM."""
        hook = self.raw.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
        return float(hook["sleep"]["seconds"])

    def environment(
        self, given: Mapping[str, str], known: Mapping[str, str], changes: Mapping[str, str]
    ) -> dict[str, str]:
        """Its variables: those that its image and a controller give, and its own.

        ``known``: fields of the pod by their path. ``changes``: values to be had instead.
        """
        values = dict(given)
        for entry in self.raw.get("env", []):
            name = entry["name"]
            if name in changes:
                values[name] = changes[name]
            elif "value" in entry:
                values[name] = _expanded(entry["value"], values)
            else:
                values[name] = known[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        return values

    def command(self, environment: Mapping[str, str]) -> list[str]:
        """What is run, with $(NAME) replaced as Kubernetes does it."""
        words = [*self.raw["command"], *self.raw.get("args", [])]
        return [_expanded(str(word), environment) for word in words]

    def probe(self, name: str) -> Probe | None:
        """The startup, readiness or liveness probe."""
        found = self.raw.get(f"{name}Probe")
        if found is None:
            return None
        port = found["grpc"]["port"]
        return Probe(
            port=port,
            service=found["grpc"].get("service", ""),
            period=found.get("periodSeconds", 10),
            timeout=found.get("timeoutSeconds", 1),
            failures=found.get("failureThreshold", 3),
        )

    def mounts(self) -> Iterator[Mount]:
        volumes = {volume["name"]: volume for volume in self._pod.get("volumes", [])}
        for mount in self.raw.get("volumeMounts", []):
            # What is not among them a StatefulSet claims.
            volume = volumes.get(mount["name"], {"name": mount["name"], "claimTemplate": True})
            yield Mount(mount["mountPath"], volume, bool(mount.get("readOnly")))


@dataclass(frozen=True)
class PodTemplate:
    """The pods of a workload; ``raw`` is their spec as it was rendered."""

    workload: str
    kind: str
    labels: Mapping[str, str]
    raw: Mapping[str, Any]

    @property
    def container(self) -> Container:
        [only] = self.raw["containers"]
        return Container(only, self.raw)

    @property
    def init_containers(self) -> list[Container]:
        return [Container(each, self.raw) for each in self.raw.get("initContainers", [])]

    @property
    def grace(self) -> float:
        return float(self.raw["terminationGracePeriodSeconds"])


@dataclass(frozen=True)
class Service:
    """A name and the labels of the pods behind it."""

    name: str
    selector: Mapping[str, str]
    publishes_unready: bool


class Rendering:
    """All objects of one overlay."""

    def __init__(self, documents: list[Mapping[str, Any]]) -> None:
        self._documents = documents

    def template(self, workload: str, role: str = "worker") -> PodTemplate:
        """The pods of a Deployment, StatefulSet or LeaderWorkerSet; ``role``: of the latter."""
        for document in self._documents:
            kind = document["kind"]
            if kind in _POD_TEMPLATES and document["metadata"]["name"] == workload:
                found: Any = document
                path = _POD_TEMPLATES[kind]
                if kind == "LeaderWorkerSet" and role == "leader":
                    leader = "leaderTemplate"
                    if leader in document["spec"]["leaderWorkerTemplate"]:
                        path = (*path[:-1], leader)
                for key in path:
                    found = found[key]
                return PodTemplate(workload, kind, found["metadata"]["labels"], found["spec"])
        raise KeyError(workload)

    @property
    def services(self) -> list[Service]:
        return [
            Service(
                document["metadata"]["name"],
                document["spec"]["selector"],
                document["spec"].get("publishNotReadyAddresses", False),
            )
            for document in self._documents
            if document["kind"] == "Service"
        ]


def _expanded(text: str, values: Mapping[str, str]) -> str:
    return _REFERENCE.sub(lambda found: values.get(found[1], found[0]), text)
