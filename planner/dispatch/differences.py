"""In what a plan and a connected executor differ: pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planner.compile.device import CPU, LEAST_FOR_TYPE, NEEDS_BFLOAT16
from planner.compile.plan import ComponentQuantization, Placement
from planner.dispatch.matching import Offer, Requirement

_BFLOAT16 = "bfloat16"
_UNQUANTIZED = "no quantization"
_MAX_LISTED = 6


@dataclass(frozen=True, slots=True)
class Difference:
    """What the plan wants and what the executor has.

    ``held``: it is settled when weights are loaded, so loading them anew could settle it otherwise.
    """

    wants: str
    has: str
    held: bool = False


def differences(needed: Requirement, offer: Offer) -> list[Difference]:
    """Nothing exactly where the offer's keys hold the requirement's."""
    return [*_fixed(needed, offer), *_placement(needed, offer)]


def lacks(placement: Placement, device: str) -> list[str]:
    """What of a placement a device ("cpu", or a compute capability as "sm90") cannot do, in words.

    Nothing where the device is not known.
    """
    if not device:
        return []
    capability = 0 if device == CPU else int(device.removeprefix("sm"))
    return [
        f"{quant_type} needs a CUDA device of at least sm{least}, not {device}"
        for quant_type in _types(placement)
        if (least := LEAST_FOR_TYPE.get(quant_type, 0)) > capability
    ]


def _types(placement: Placement) -> list[str]:
    """Every type that a layer may have, and "" for none."""
    types = [placement.quant_type, *(each.quant_type for each in placement.components)]
    return list(dict.fromkeys([*types, *(rule.quant_type for rule in placement.precision)]))


def hindrances(needed: Requirement, offer: Offer) -> list[str]:
    """What the executor could not do even if it loaded its model anew, in words."""
    found, ranks = lacks(needed.placement, offer.device), offer.offered.world_size
    if offer.dtype not in ("", _BFLOAT16):
        found += [
            f"{quant_type} is made of {_BFLOAT16} weights, not {offer.dtype}"
            for quant_type in _types(needed.placement)
            if quant_type in NEEDS_BFLOAT16
        ]
    if ranks % needed.tp_size:
        found.append(f"tp_size {needed.tp_size} does not divide its {ranks} ranks")
    return found


def could_reload(needed: Requirement, offer: Offer) -> bool:
    """Whether an executor that differs would meet the requirement after it loaded its model anew.

    Model, architecture, world size and attention backends stay as they are.
    """
    return (
        offer.allow_reload
        and needed.model == offer.offered.model
        and not any(_fixed(needed, offer))
        and not hindrances(needed, offer)
    )


def _fixed(needed: Requirement, offer: Offer) -> Iterator[Difference]:
    offered = offer.offered
    if needed.model != offered.model:
        yield Difference(f"model {needed.model!r}", f"model {offered.model!r}")
    elif needed.architecture != offered.architecture:
        yield Difference("the architecture that it was compiled for", "another architecture")
    if needed.world_size != offered.world_size:
        yield Difference(f"world size {needed.world_size}", f"world size {offered.world_size}")
    backend = needed.attention_backend
    if backend and backend not in offer.attention_backends:
        has = f"attention backends {listed(offer.attention_backends)}"
        yield Difference(f"attention backend {backend}", has)


def _placement(needed: Requirement, offer: Offer) -> Iterator[Difference]:
    offered = offer.offered
    if needed.tp_size != offered.tp_size:
        yield Difference(f"tp_size {needed.tp_size}", f"tp_size {offered.tp_size}", held=True)
    if needed.shared_encoders != offered.shared_encoders:
        wants, has = (_shared(each) for each in (needed.shared_encoders, offered.shared_encoders))
        yield Difference(wants, has, held=True)
    wanted, held = needed.placement, offered.placement
    if wanted.components or held.components:
        names = [target.name for target in needed.architecture.targets]
        names += [each.name for each in (*wanted.components, *held.components)]
        for name in sorted(set(names)):
            yield from _component(name, wanted.of(name), held.of(name), "unquantized")
    else:
        # Of all transformers alike, which need no name then.
        name = needed.architecture.targets[0].name
        yield from _component("", wanted.of(name), held.of(name), offer.dtype or _UNQUANTIZED)
    yield from _precision(wanted, held)


def _component(
    name: str,
    wanted: ComponentQuantization | None,
    held: ComponentQuantization | None,
    unquantized: str,
) -> Iterator[Difference]:
    """``name`` is empty for all transformers."""

    def typed(quantization: ComponentQuantization | None) -> str:
        if quantization is None:
            return f"{name} {unquantized}".lstrip()
        return f"{name} in {quantization.quant_type}" if name else quantization.quant_type

    if wanted is None and held is None:
        return
    if wanted is None or held is None or wanted.quant_type != held.quant_type:
        wants = _UNQUANTIZED if wanted is None and not name else typed(wanted)
        yield Difference(wants, typed(held), held=True)
    if wanted is None or held is None or wanted.exclude_layers == held.exclude_layers:
        return
    wants, has = (f"{typed(each)} {_without(each.exclude_layers)}" for each in (wanted, held))
    yield Difference(wants, has, held=True)


def _precision(wanted: Placement, held: Placement) -> Iterator[Difference]:
    by_part = [{rule.part: rule.quant_type for rule in each.precision} for each in (wanted, held)]
    for part in sorted(by_part[0] | by_part[1]):
        wants, has = (found.get(part, "the type of the rest") for found in by_part)
        if wants != has:
            yield Difference(f"layers {part} in {wants}", f"layers {part} in {has}", held=True)


def _shared(encoders: Sequence[str]) -> str:
    return f"{listed(encoders)} shared by the ranks" if encoders else "no shared text encoder"


def _without(layers: Sequence[str]) -> str:
    return f"without layers {listed(layers)}" if layers else "in all layers"


def listed(names: Sequence[str], most: int = _MAX_LISTED) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
