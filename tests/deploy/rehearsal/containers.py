"""What a kubelet reads of a rendered container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.deploy.rendering import Object, Pods


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
    """Where what is mounted; ``volume`` as the pod declares or claims it."""

    name: str
    path: str
    volume: Object
    read_only: bool


@dataclass(frozen=True)
class Container:
    """One container of a pod, as it was rendered."""

    pod: Pods
    raw: Object

    @property
    def user(self) -> tuple[int, int]:
        security = {**self.pod.spec["securityContext"], **self.raw.get("securityContext", {})}
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

    def environment(self, given: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
        """Its variables: those that its image and a controller give, and its own.

        ``changes``: values of its own to be had instead.
        """
        own = {each["name"]: each["value"] for each in self.raw.get("env", ())}
        return {**given, **own, **{name: changes[name] for name in own.keys() & changes.keys()}}

    def probe(self, name: str) -> Probe | None:
        """The startup, readiness or liveness probe."""
        found = self.raw.get(f"{name}Probe")
        if found is None:
            return None
        return Probe(
            port=found["grpc"]["port"],
            service=found["grpc"].get("service", ""),
            period=found.get("periodSeconds", 10),
            timeout=found.get("timeoutSeconds", 1),
            failures=found.get("failureThreshold", 3),
        )

    def mounts(self) -> Iterator[Mount]:
        volumes = self.pod.volumes
        for each in self.raw.get("volumeMounts", ()):
            name = each["name"]
            yield Mount(name, each["mountPath"], volumes[name], bool(each.get("readOnly")))
