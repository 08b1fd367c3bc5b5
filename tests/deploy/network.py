"""Who may dial whom, as the NetworkPolicies of a rendering have it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from tests.deploy.rendering import Object, of_kind, selects

OWN = {"kubernetes.io/metadata.name": "ditplan"}


@dataclass(frozen=True, slots=True)
class Peer:
    """A pod by its labels and those of its namespace, or an address without labels."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] = field(default_factory=lambda: OWN)
    address: str = ""


def may_dial(objects: list[Object], source: Peer, target: Peer, port: int, by: str = "TCP") -> bool:
    policies = of_kind(objects, "NetworkPolicy")
    return _passes(policies, "Egress", source, target, port, by) and _passes(
        policies, "Ingress", target, source, port, by
    )


def _passes(policies: list[Object], way: str, held: Peer, other: Peer, port: int, by: str) -> bool:
    """Whether the policies that hold one end let it talk to the other."""
    if held.namespace != OWN or held.address:
        return True
    holding = [
        each["spec"]
        for each in policies
        if way in each["spec"]["policyTypes"] and selects(each["spec"]["podSelector"], held.labels)
    ]
    key = "from" if way == "Ingress" else "to"
    return not holding or any(
        _is_open(rule, port, by) and (key not in rule or any(_is(of, other) for of in rule[key]))
        for spec in holding
        for rule in spec.get(way.lower(), ())
    )


def _is_open(rule: Object, port: int, by: str) -> bool:
    return "ports" not in rule or any(
        each["port"] == port and each.get("protocol", "TCP") == by for each in rule["ports"]
    )


def _is(described: Object, peer: Peer) -> bool:
    if "ipBlock" in described:
        network = ipaddress.ip_network(described["ipBlock"]["cidr"])
        return bool(peer.address) and ipaddress.ip_address(peer.address) in network
    if peer.address:
        return False
    at_home = "namespaceSelector" not in described and peer.namespace == OWN
    return (
        at_home or selects(described.get("namespaceSelector", {"-": "-"}), peer.namespace)
    ) and (selects(described.get("podSelector", {}), peer.labels))
