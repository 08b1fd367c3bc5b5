"""Objects against their schemas, unknown fields included, without a cluster or a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudcoil.models.cert_manager.v1 as cert_manager
import cloudcoil.models.keda.v1alpha1 as keda
import cloudcoil.models.prometheus_operator.v1 as prometheus
import jsonschema
import kubernetes_validate
import pydantic

from tests.deploy.rendering import Object, pods

# The oldest that the README names, and the newest that is known.
VERSIONS = ("1.31", kubernetes_validate.latest_version())
# Of custom resources, as their makers generate them from the definitions.
_MODELS: dict[str, type[pydantic.BaseModel]] = {
    "Certificate": cert_manager.Certificate,
    "Issuer": cert_manager.Issuer,
    "PodMonitor": prometheus.PodMonitor,
    "PrometheusRule": prometheus.PrometheusRule,
    "ScaledObject": keda.ScaledObject,
}
_GROUPS = json.loads((Path(__file__).parent / "schemas/leaderworkerset.json").read_text())


def as_pods(objects: list[Object]) -> list[Object]:
    """The pods of groups, which tools that do not know LeaderWorkerSet do know."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": each.template["metadata"]
            | {
                "name": each.name.replace(" ", "-"),
                "namespace": each.owner["metadata"]["namespace"],
            },
            "spec": each.spec,
        }
        for each in pods(objects)
        if each.group
    ]


def faults(objects: list[Object], versions: tuple[str, ...] = VERSIONS) -> Iterator[str]:
    for each in [*objects, *as_pods(objects)]:
        name = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "LeaderWorkerSet":
            found = jsonschema.Draft7Validator(_GROUPS).iter_errors(each)
            yield from (f"{name}: {error.json_path}: {error.message}" for error in found)
        elif each["kind"] in _MODELS:
            yield from (f"{name}: {fault}" for fault in _modelled(each))
        else:
            for version in versions:
                try:
                    kubernetes_validate.validate(each, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    yield f"{name}, Kubernetes {version}: {error.message}"


def _modelled(given: Object) -> Iterator[str]:
    try:
        known = _MODELS[given["kind"]].model_validate(given)
    except pydantic.ValidationError as error:
        yield str(error)
        return
    yield from _unknown(given, known.model_dump(by_alias=True, mode="json", exclude_unset=True), "")


def _unknown(given: Any, known: Any, path: str) -> Iterator[str]:
    """What was given and is not in what the model made of it."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key in known:
                yield from _unknown(value, known[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is no field"
    elif isinstance(given, list) and isinstance(known, list):
        for index, (value, other) in enumerate(zip(given, known, strict=True)):
            yield from _unknown(value, other, f"{path}[{index}]")
