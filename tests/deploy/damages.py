"""What a check of manifests has to find: a rendering, and what is broken in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.deploy.rendering import Object, of_kind


def _first(objects: list[Object], kind: str, name: str) -> Object:
    return next(each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)


def _container(objects: list[Object], kind: str, name: str) -> Object:
    return _first(objects, kind, name)["spec"]["template"]["spec"]["containers"][0]  # type: ignore[no-any-return]


def _group(objects: list[Object]) -> Object:
    return _first(objects, "LeaderWorkerSet", "executor")["spec"]["leaderWorkerTemplate"]  # type: ignore[no-any-return]


def _replace(words: list[str], old: str, new: str) -> None:
    words[:] = [word.replace(old, new) for word in words]
    assert any(new in word for word in words) or not new


Damage = Callable[[list[Object]], Any]

# What breaks, of the rendering multi-node or another one, and which check is to say so.
DAMAGES: dict[str, tuple[str, str, Damage]] = {
    "an unknown option": (
        "command",
        "multi-node",
        lambda o: _container(o, "Deployment", "planner")["args"].append("--max-pixel=1"),
    ),
    "a value that is none of the choices": (
        "command",
        "single-node",
        lambda o: _container(o, "Deployment", "executor")["args"].append("--dtype=fp8"),
    ),
    "plaintext to other machines": (
        "command",
        "single-node",
        lambda o: _container(o, "Deployment", "executor")["args"].__delitem__(slice(0, 3)),
    ),
    "data of a replica": (
        "command",
        "local",
        lambda o: _container(o, "Deployment", "planner")["args"].append("--data=/tmp"),
    ),
    "a variable without a value": (
        "command",
        "single-node",
        lambda o: _container(o, "Deployment", "executor")["env"].pop(0),
    ),
    "a variable that nobody reads": (
        "variables",
        "single-node",
        lambda o: _container(o, "Deployment", "executor")["env"].append(
            {"name": "DITPLAN_RANKS", "value": "8"}
        ),
    ),
    "a worker of another model": (
        "ranks",
        "multi-node",
        lambda o: _group(o)["workerTemplate"]["spec"]["containers"][0]["args"].append(
            "--dtype=float32"
        ),
    ),
    "a group of another size": (
        "ranks",
        "multi-node",
        lambda o: [
            _replace(_group(o)[role]["spec"]["containers"][0]["command"], "$(LWS_GROUP_SIZE)", "3")
            for role in ("leaderTemplate", "workerTemplate")
        ],
    ),
    "another port": (
        "ports",
        "local",
        lambda o: _replace(_container(o, "StatefulSet", "dispatch")["args"], "7331", "7339"),
    ),
    "an address of the pod alone": (
        "ports",
        "local",
        lambda o: _replace(
            _container(o, "Deployment", "planner")["args"], "0.0.0.0:9330", "127.0.0.1:9330"
        ),
    ),
    "a service that health does not know": (
        "probes",
        "local",
        lambda o: _container(o, "Deployment", "executor")["livenessProbe"]["grpc"].update(
            service="live"
        ),
    ),
    "a longer drain": (
        "grace",
        "single-node",
        lambda o: _replace(_container(o, "Deployment", "executor")["args"], "=300", "=600"),
    ),
    "a worker that is killed early": (
        "grace",
        "multi-node",
        lambda o: _group(o)["workerTemplate"]["spec"].update(terminationGracePeriodSeconds=30),
    ),
    "a request beyond its limit": (
        "resources",
        "local",
        lambda o: _container(o, "Deployment", "planner")["resources"]["requests"].update(cpu="3"),
    ),
    "fewer GPUs than ranks": (
        "resources",
        "single-node",
        lambda o: _container(o, "Deployment", "executor")["resources"]["limits"].update(
            {"nvidia.com/gpu": "4"}
        ),
    ),
    "a writable root": (
        "restricted",
        "local",
        lambda o: _container(o, "Deployment", "executor")["securityContext"].update(
            readOnlyRootFilesystem=False
        ),
    ),
    "a key that the secret has not": (
        "files",
        "single-node",
        lambda o: _replace(_container(o, "Deployment", "planner")["args"], "tls.crt", "cert.pem"),
    ),
    "a model that is not mounted": (
        "files",
        "single-node",
        lambda o: _container(o, "Deployment", "executor")["volumeMounts"].pop(),
    ),
    "a selector that chooses nobody": (
        "selectors",
        "local",
        lambda o: _first(o, "Service", "planner")["spec"]["selector"].update(
            {"app.kubernetes.io/component": "front"}
        ),
    ),
    "a budget that counts workers": (
        "selectors",
        "multi-node",
        lambda o: _first(o, "PodDisruptionBudget", "executor")["spec"]["selector"][
            "matchLabels"
        ].pop("leaderworkerset.sigs.k8s.io/worker-index"),
    ),
    "a service that is not there": (
        "services",
        "local",
        lambda o: _replace(_container(o, "Deployment", "executor")["args"], "dispatch:", "planer:"),
    ),
    "a scaler without its port": (
        "services",
        "multi-node",
        lambda o: _first(o, "Service", "dispatch")["spec"]["ports"].pop(),
    ),
    "a certificate for another host": (
        "secrets",
        "single-node",
        lambda o: _first(o, "Certificate", "dispatch")["spec"]["dnsNames"].pop(0),
    ),
    "a secret of another name": (
        "secrets",
        "single-node",
        lambda o: _first(o, "Certificate", "planner")["spec"].update(secretName="planner-cert"),
    ),
    "an image of its own": (
        "images",
        "local",
        lambda o: _container(o, "Deployment", "planner").update(image="planner:latest"),
    ),
    "replicas beside a scaler": (
        "scaling",
        "multi-node",
        lambda o: _first(o, "Deployment", "planner")["spec"].update(replicas=2),
    ),
    "more groups than policies": (
        "scaling",
        "multi-node",
        lambda o: _first(o, "ScaledObject", "executor")["spec"].update(maxReplicaCount=5),
    ),
    "scaling by another model": (
        "scaling",
        "copied",
        lambda o: _first(o, "ScaledObject", "executor")["spec"]["triggers"][0]["metadata"].update(
            query='ditplan_planner_queued_predicted_seconds{model="flux"}'
        ),
    ),
    "a metric that nobody counts": (
        "queries",
        "multi-node",
        lambda o: _rule(o, "DitplanQueueOld").update(expr="ditplan_planner_oldest_seconds > 1"),
    ),
    "a label that it has not": (
        "queries",
        "multi-node",
        lambda o: _rule(o, "DitplanQueueOld").update(
            expr='ditplan_planner_leases_lost_total{reason="expired"} > 1'
        ),
    ),
    "an alert without a runbook": (
        "alerts",
        "multi-node",
        lambda o: _rule(o, "DitplanQueueOld")["annotations"].update(
            runbook_url="https://example.org/docs/operations.md#nowhere"
        ),
    ),
    "another namespace": (
        "names",
        "local",
        lambda o: _first(o, "Service", "planner")["metadata"].update(namespace="default"),
    ),
}


def _rule(objects: list[Object], name: str) -> Object:
    groups = _first(objects, "PrometheusRule", "ditplan")["spec"]["groups"]
    return next(rule for group in groups for rule in group["rules"] if rule["alert"] == name)
