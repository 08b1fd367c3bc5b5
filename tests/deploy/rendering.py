"""What kubectl makes of a kustomization, as objects, and the pods that they stand for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(path.parent for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
# Of components that no overlay has.
OTHERS = sorted(path.parent for path in Path(__file__).parent.glob("renderings/*/*.yaml"))
RENDERINGS = {path.name: path for path in (*OVERLAYS, *OTHERS)}

_GROUP = "leaderworkerset.sigs.k8s.io"
_REFERENCE = re.compile(r"\$\((\w+)\)")

Object = dict[str, Any]


def kubectl() -> str | None:
    return shutil.which("kubectl")


@cache
def rendered(path: Path) -> str:
    """The YAML that ``kubectl kustomize`` makes; fails with what kubectl says."""
    ran = subprocess.run(
        [kubectl() or "kubectl", "kustomize", str(path)], capture_output=True, text=True
    )
    assert not ran.returncode, f"{path}: {ran.stderr}"
    return ran.stdout


def render(path: Path) -> list[Object]:
    """The objects of a kustomization; the caller may change them."""
    return list(yaml.safe_load_all(rendered(path)))


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods of one template. ``group``: of the leader or the workers of a LeaderWorkerSet."""

    owner: Object
    template: Object
    group: str = ""

    @property
    def name(self) -> str:
        return f"{self.owner['metadata']['name']}{self.group and ' ' + self.group}"

    @property
    def spec(self) -> Object:
        return self.template["spec"]  # type: ignore[no-any-return]

    @property
    def labels(self) -> dict[str, str]:
        labels = dict(self.template["metadata"]["labels"])
        if self.group:
            labels[f"{_GROUP}/name"] = self.owner["metadata"]["name"]
            labels[f"{_GROUP}/group-index"] = "1"
            labels[f"{_GROUP}/worker-index"] = "0" if self.group == "leader" else "1"
        return labels

    @property
    def container(self) -> Object:
        """The one that serves."""
        (container,) = self.spec["containers"]
        return container  # type: ignore[no-any-return]

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container.get("ports", ())}

    @property
    def volumes(self) -> dict[str, Object]:
        claimed = self.owner["spec"].get("volumeClaimTemplates", ())
        claims = {each["metadata"]["name"]: {"persistentVolumeClaim": each} for each in claimed}
        return claims | {each["name"]: each for each in self.spec.get("volumes", ())}

    @property
    def variables(self) -> dict[str, str]:
        given = {each["name"]: each["value"] for each in self.container.get("env", ())}
        if not self.group:
            return given
        # LeaderWorkerSet's, of the first worker of the second group.
        return given | {
            "LWS_LEADER_ADDRESS": "executor-1.executor.ditplan",
            "LWS_GROUP_SIZE": str(self.owner["spec"]["leaderWorkerTemplate"]["size"]),
            "LWS_WORKER_INDEX": "0" if self.group == "leader" else "1",
        }

    @property
    def command(self) -> list[str]:
        """Command and arguments as the kubelet starts them."""
        return command_of(self.container, self.variables)


def pods(objects: list[Object]) -> Iterator[Pods]:
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet"):
            yield Pods(each, each["spec"]["template"])
        if each["kind"] == "LeaderWorkerSet":
            templates = each["spec"]["leaderWorkerTemplate"]
            yield Pods(each, templates["leaderTemplate"], "leader")
            yield Pods(each, templates["workerTemplate"], "worker")


def pods_of(objects: list[Object], name: str, group: str = "worker") -> Pods:
    """Those of one Deployment, StatefulSet or LeaderWorkerSet; ``group``: of the latter."""
    (found,) = (
        each
        for each in pods(objects)
        if each.owner["metadata"]["name"] == name and each.group in ("", group)
    )
    return found


def command_of(container: Object, variables: Mapping[str, str]) -> list[str]:
    """Command and arguments, with $(NAME) replaced as Kubernetes does it."""
    words = [*container["command"], *container.get("args", ())]
    return [_REFERENCE.sub(lambda at: variables.get(at[1], at[0]), word) for word in words]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a selector of labels, in either spelling, chooses these; an empty one does."""
    assert "matchExpressions" not in selector, "write it with matchLabels"
    return selector.get("matchLabels", selector).items() <= labels.items()
