"""What is wrong with how the objects of a rendering name each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from tests.deploy.commands import options, torchrun
from tests.deploy.pod_checks import SECRETS
from tests.deploy.rendering import KUBERNETES, Object, Pods, of_kind, pods, selects

NAMESPACE = "ditplan"
_OF_CLUSTER = ("Namespace", "PriorityClass")
_SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
_SELECTING = ("Service", "PodDisruptionBudget", "PodMonitor")
_EXTERNAL_KEYS = {"scalerAddress", "model", "targetSeconds"}


def check_names(objects: list[Object]) -> Iterator[str]:
    """One namespace, and the labels by which all that is ditplan's is found."""
    (namespace,) = of_kind(objects, "Namespace")
    if namespace["metadata"]["name"] != NAMESPACE:
        yield f"namespace {namespace['metadata']['name']}"
    templates = [each.template for each in pods(objects)]
    for each in (*objects, *templates):
        metadata = each["metadata"]
        name = f"{each.get('kind', 'template')} {metadata.get('name')}"
        if each.get("kind") not in (None, *_OF_CLUSTER) and metadata["namespace"] != NAMESPACE:
            yield f"{name}: is in {metadata['namespace']}"
        for key, value in {
            "name": "ditplan",
            "part-of": "ditplan",
            "managed-by": "kustomize",
        }.items():
            if metadata.get("labels", {}).get(f"app.kubernetes.io/{key}") != value:
                yield f"{name}: {key} is not {value}"


def check_selectors(objects: list[Object]) -> Iterator[str]:
    """Every selector chooses pods, and a workload's its own and nobody else's."""
    labels = [each.labels for each in pods(objects)]
    for each in objects:
        kind, spec = each["kind"], each.get("spec", {})
        selector = spec.get("selector")
        if kind in ("Deployment", "StatefulSet"):
            chosen = [of for of in pods(objects) if selects(selector, of.labels)]
            if [of.owner for of in chosen] != [each]:
                yield f"{kind} {each['metadata']['name']}: chooses {[of.name for of in chosen]}"
        elif kind in _SELECTING and not any(selects(selector, of) for of in labels):
            yield f"{kind} {each['metadata']['name']}: chooses nobody"
    for each in pods(objects):
        for spread in each.spec.get("topologySpreadConstraints", ()):
            if not selects(spread["labelSelector"], each.labels):
                yield f"{each.name}: is spread over others"
        accounts = {of["metadata"]["name"] for of in of_kind(objects, "ServiceAccount")}
        if each.spec["serviceAccountName"] not in accounts:
            yield f"{each.name}: no ServiceAccount {each.spec['serviceAccountName']}"
        classes = {of["metadata"]["name"] for of in of_kind(objects, "PriorityClass")}
        if each.spec.get("priorityClassName") not in {None, *classes}:
            yield f"{each.name}: no PriorityClass {each.spec['priorityClassName']}"
    for each in of_kind(objects, "PodDisruptionBudget"):
        held = [of for of in pods(objects) if selects(each["spec"]["selector"], of.labels)]
        if any(of.group == "worker" for of in held):
            yield f"PodDisruptionBudget {each['metadata']['name']}: counts workers of groups"


def check_services(objects: list[Object]) -> Iterator[str]:
    """Ports of services are ports of their pods; what is dialled is such a port."""
    for each in of_kind(objects, "Service"):
        for of in pods(objects):
            if selects(each["spec"]["selector"], of.labels):
                for port in each["spec"]["ports"]:
                    if of.ports.get(port["targetPort"]) != port["port"]:
                        yield f"Service {each['metadata']['name']}: {port} is none of {of.ports}"
    for each in pods(objects):
        address = options(each).get("planner" if torchrun(each) else "dispatch")
        if address:
            yield from (f"{each.name}: {fault}" for fault in _dial(objects, address))
    for trigger in _triggers(objects, "external"):
        yield from _dial(objects, trigger["scalerAddress"])


def _dial(objects: list[Object], address: str) -> Iterator[str]:
    host, _, port = address.rpartition(":")
    for each in of_kind(objects, "Service"):
        name, ports = each["metadata"]["name"], each["spec"]["ports"]
        if host in (name, f"{name}.{NAMESPACE}") and int(port) in [of["port"] for of in ports]:
            return
    yield f"no service at {address}"


def check_secrets(objects: list[Object]) -> Iterator[str]:
    """Secrets are those that are documented; certificates are for whom their service is dialled."""
    used = {
        volume["secret"]["secretName"]: each
        for each in pods(objects)
        for volume in each.volumes.values()
        if "secret" in volume
    }
    yield from (f"secret {name} is unknown" for name in set(used) - set(SECRETS))
    certificates = {of["spec"]["secretName"]: of for of in of_kind(objects, "Certificate")}
    if not certificates:
        return
    issuers = {of["metadata"]["name"] for of in of_kind(objects, "Issuer")}
    for name in (name for name in used if name.endswith("-tls")):
        if name not in certificates:
            yield f"no certificate for {name}"
            continue
        spec = certificates[name]["spec"]
        if spec["issuerRef"]["name"] not in issuers:
            yield f"{name}: no issuer {spec['issuerRef']['name']}"
        given = options(used[name])
        service = name.removesuffix("-tls")
        wanted = {"client auth"} if given.get("ca") or given.get("dispatch_ca") else set()
        if given.get("tls_cert"):
            wanted |= {"server auth"}
            hosts = {service, f"{service}.{NAMESPACE}", f"{service}.{NAMESPACE}.svc"}
            if not hosts <= set(spec["dnsNames"]):
                yield f"{name}: is not for {hosts - set(spec['dnsNames'])}"
            if service not in {of["metadata"]["name"] for of in of_kind(objects, "Service")}:
                yield f"{name}: no service {service}"
        if set(spec["usages"]) - {"digital signature"} != wanted:
            yield f"{name}: is for {spec['usages']}, used as {wanted}"


def check_images(objects: list[Object]) -> Iterator[str]:
    """Every image and its tag come from one place."""
    component = yaml.safe_load((KUBERNETES / "components/images/kustomization.yaml").read_text())
    known = {f"{each['name']}:{each['newTag']}" for each in component["images"]}
    for each in pods(objects):
        for container in each.containers:
            if container["image"] not in known:
                yield f"{each.name}: {container['image']} is not of components/images"


def check_scaling(objects: list[Object]) -> Iterator[str]:
    """What is scaled exists and sets no number itself; scaling in lets an executor drain first."""
    for each in of_kind(objects, *_SCALERS):
        name, spec = f"{each['kind']} {each['metadata']['name']}", each["spec"]
        target = spec["scaleTargetRef"]
        found = [
            of
            for of in objects
            if (of["apiVersion"], of["kind"], of["metadata"]["name"])
            == (target["apiVersion"], target["kind"], target["name"])
        ]
        if not found:
            yield f"{name}: no {target['kind']} {target['name']}"
            continue
        if "replicas" in found[0]["spec"]:
            yield f"{name}: an apply would set replicas of {target['name']} back"
        scaled = [of for of in pods(objects) if of.owner is found[0]]
        behaviour = spec.get("behavior") or _behaviour(spec)
        policies = behaviour["scaleDown"]["policies"]
        grace = max(of.spec["terminationGracePeriodSeconds"] for of in scaled)
        if any(of["type"] != "Pods" or of["value"] != 1 for of in policies):
            yield f"{name}: ends several at once"
        if any(of["periodSeconds"] < grace for of in policies):
            yield f"{name}: ends the next before one has drained for {grace} s"
        yield from (f"{name}: {fault}" for fault in _model(spec, scaled))
        groups = [
            of for of in of_kind(objects, "NetworkPolicy") if "group" in of["metadata"]["name"]
        ]
        if groups and spec.get("maxReplicaCount", 0) > len(groups):
            yield f"{name}: {spec['maxReplicaCount']} groups, policies for {len(groups)}"


def _behaviour(spec: Object) -> Object:
    return spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]  # type: ignore[no-any-return]


def _model(spec: Object, scaled: list[Pods]) -> Iterator[str]:
    """Triggers ask for the model that the executors serve."""
    for trigger in spec.get("triggers", ()):
        metadata = trigger["metadata"]
        if trigger["type"] == "external":
            yield from (f"{key} is no key" for key in set(metadata) - _EXTERNAL_KEYS)
            model = metadata.get("model")
        else:
            model = ",".join(set(re.findall(r'model="([^"]*)"', metadata["query"]))) or None
        if model is not None and model != options(scaled[0])["served_name"]:
            yield f"scales by {model}, serves {options(scaled[0])['served_name']}"


def _triggers(objects: list[Object], kind: str) -> Iterator[Object]:
    for each in of_kind(objects, "ScaledObject"):
        yield from (of["metadata"] for of in each["spec"]["triggers"] if of["type"] == kind)
