"""Network policies let through what has to pass, and nothing else."""

from __future__ import annotations

import pytest

from tests.deploy.network import Peer, may_dial
from tests.deploy.rendering import RENDERINGS, Object, kubectl, pods, render

pytestmark = pytest.mark.skipif(kubectl() is None, reason="kubectl is not on the path")

_GROUP = "leaderworkerset.sigs.k8s.io/group-index"
_OTHERS = {
    "client": Peer({}, {"kubernetes.io/metadata.name": "shop", "ditplan-clients": "true"}),
    "stranger": Peer({"app.kubernetes.io/name": "ditplan"}, {"kubernetes.io/metadata.name": "x"}),
    "neighbour": Peer({"app": "debug"}),
    "prometheus": Peer({}, {"kubernetes.io/metadata.name": "monitoring"}),
    "keda": Peer({}, {"kubernetes.io/metadata.name": "keda"}),
    "node": Peer(address="10.0.0.1"),
    "internet": Peer(address="203.0.113.7"),
    "dns": Peer({"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"}),
    "local dns": Peer(address="169.254.20.10"),
}
_PORTS = (53, 443, 7330, 7331, 7332, 7340, 9330, 29500, 40000)
# Who dials whom at which ports; beside these nobody does.
_ONE_NODE = {
    ("client", "planner"): {7330},
    ("planner", "dispatch"): {7330},
    ("executor", "dispatch"): {7330},
    ("prometheus", "planner"): {9330},
    ("prometheus", "dispatch"): {9330},
    ("prometheus", "executor"): {9330},
    ("keda", "dispatch"): {7332},
}
_GROUPS = {
    **{pair: ports for pair, ports in _ONE_NODE.items() if "executor" not in pair},
    ("executor leader", "dispatch"): {7330},
    ("executor worker", "dispatch"): {7330},
    ("prometheus", "executor leader"): {9330},
    ("prometheus", "executor worker"): {9330},
    ("executor leader", "executor worker"): set(_PORTS),
    ("executor worker", "executor leader"): set(_PORTS),
}
_HEALTH = {7331, 7340}


def _peers(objects: list[Object]) -> dict[str, Peer]:
    found = {each.name: Peer(each.labels) for each in pods(objects)}
    if "executor leader" in found:
        leader = found["executor leader"].labels
        found["other group"] = Peer({**leader, _GROUP: "0"})
    return found


def _allowed(objects: list[Object]) -> dict[tuple[str, str], set[int]]:
    own = _peers(objects)
    everyone = own | _OTHERS
    found = {}
    for source, by in everyone.items():
        for target, to in everyone.items():
            if source != target and (source in own or target in own):
                ports = {port for port in _PORTS if may_dial(objects, by, to, port)}
                found[source, target] = ports
    return found


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_only_what_has_to_pass_does(rendering: str) -> None:
    objects = render(RENDERINGS[rendering])
    own = _peers(objects)
    wanted = _GROUPS if "other group" in own else _ONE_NODE
    for (source, target), ports in _allowed(objects).items():
        # A leader as any, but for the ranks of the first group, which are not its own.
        pair = tuple(name.replace("other group", "executor leader") for name in (source, target))
        foreign = "executor" in source + target and "other group" in (source, target)
        expected = set() if foreign else set(wanted.get(pair, ()))
        if source in _OTHERS and source != "neighbour":
            expected |= _HEALTH
        if "dns" in target:
            expected |= {53}
        assert ports == expected, (source, target)


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_names_are_looked_up_over_udp(rendering: str) -> None:
    objects = render(RENDERINGS[rendering])
    for source in _peers(objects).values():
        assert may_dial(objects, source, _OTHERS["dns"], 53, by="UDP")
        assert not may_dial(objects, source, _OTHERS["internet"], 53, by="UDP")


def test_without_the_default_others_would_pass() -> None:
    objects = [
        each
        for each in render(RENDERINGS["local"])
        if (each["kind"], each["metadata"]["name"]) != ("NetworkPolicy", "default-deny")
    ]
    assert may_dial(objects, Peer({"app": "debug"}), _OTHERS["internet"], 443)
    assert not may_dial(
        render(RENDERINGS["local"]), Peer({"app": "debug"}), _OTHERS["internet"], 443
    )
