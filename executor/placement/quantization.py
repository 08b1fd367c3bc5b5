"""Which layers have which type, and whether a device can compute with it: pure decisions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from executor.engine.families import FAMILIES

LEAST_CAPABILITY = {
    "float8_per_row": 89,
    "float8_per_tensor": 89,
    "float8_per_block": 89,
    "int4_weight_only": 80,
    "nvfp4": 100,
    "nvfp4_weight_only": 100,
}
"""The compute capability that a type needs, times ten; a type that is not listed runs anywhere."""

NEEDS_BFLOAT16 = frozenset({"float8_per_row", "int4_weight_only", "nvfp4", "nvfp4_weight_only"})
"""Types that torchao makes of bfloat16 weights only."""

FLOAT8_BLOCK = 128
"""Sides of the blocks of a weight that have a scale each."""

MULTIPLES = {
    "float8_per_row": 16,
    "float8_per_tensor": 16,
    "float8_per_block": FLOAT8_BLOCK,
    "nvfp4": 16,
    "nvfp4_weight_only": 16,
}
"""What inputs and outputs of a layer have to be a multiple of."""

INT4_GROUP = 128
"""Inputs that share a scale, of which a layer has a whole number."""

TYPES = frozenset(
    {*LEAST_CAPABILITY, "float8_weight_only", "int8_per_row", "int8_per_tensor", "int8_weight_only"}
)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class ComponentQuantization:
    """How one component of a pipeline is quantized."""

    name: str
    quant_type: str
    exclude_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrecisionRule:
    """Layers whose name contains ``part`` get a type of their own; the longest part decides."""

    part: str
    quant_type: str


@dataclass(frozen=True, slots=True)
class Quantization:
    """What of a pipeline is quantized; ``quant_type`` "" is nothing.

    ``components`` are those that are quantized, by name; none: every transformer, all alike.
    """

    quant_type: str = ""
    exclude_layers: tuple[str, ...] = ()
    components: tuple[ComponentQuantization, ...] = ()
    precision: tuple[PrecisionRule, ...] = ()

    def of(self, component: str) -> ComponentQuantization | None:
        """How a component is quantized; None: it is not."""
        if self.components:
            return next((each for each in self.components if each.name == component), None)
        if self.quant_type and component.startswith("transformer"):
            return ComponentQuantization(component, self.quant_type, self.exclude_layers)
        return None

    def canonical(self, transformers: Collection[str]) -> Quantization:
        """The one form of all that quantize a pipeline of these transformers alike."""
        names = sorted({*transformers, *(each.name for each in self.components)})
        found = tuple(own for name in names if (own := self.of(name)) is not None)
        if not found:
            return NOTHING
        alike = {(each.quant_type, each.exclude_layers) for each in found}
        if len(alike) == 1 and [each.name for each in found] == sorted(transformers):
            [(kind, excluded)] = alike
            return Quantization(kind, excluded, (), self.precision)
        return Quantization(components=found, precision=self.precision)

    @property
    def types(self) -> list[str]:
        """Every type that a layer may have, in the order in which they are named."""
        named = [self.quant_type, *(each.quant_type for each in self.components)]
        named += [rule.quant_type for rule in self.precision] if any(named) else []
        return list(dict.fromkeys(filter(None, named)))

    def __str__(self) -> str:
        """For people: the types, with what they are for where they differ; empty for nothing."""
        if not self.components:
            found = [self.quant_type]
        else:
            found = [f"{each.quant_type} ({each.name})" for each in self.components]
        found += [f"{rule.quant_type} ({rule.part})" for rule in self.precision]
        return ", ".join(filter(None, found))


NOTHING = Quantization()


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one linear layer: its type, or "" and the reason why it is left."""

    name: str
    quant_type: str
    reason: str = ""


def device_faults(quantization: Quantization, capability: str, dtype: torch.dtype) -> list[str]:
    """What keeps a device from holding it, each in words; nothing where it can.

    ``capability``: of a CUDA device, e.g. "sm90"; empty for a CPU. ``dtype``: of the weights before
    they are quantized.
    """
    found = []
    for kind in quantization.types:
        if kind not in TYPES:
            found.append(f"quantization type {kind} is unknown here")
            continue
        least = LEAST_CAPABILITY.get(kind)
        if least is not None and (not capability or int(capability[2:]) < least):
            here = capability or "a CPU"
            found.append(f"{kind} needs a CUDA device of at least sm{least}; this one is {here}")
        elif kind in NEEDS_BFLOAT16 and dtype is not torch.bfloat16:
            held = str(dtype).removeprefix("torch.")
            found.append(f"{kind} is made of bfloat16 weights, not {held}; use --dtype bfloat16")
    return found


def missing_components(quantization: Quantization, present: Collection[str]) -> list[str]:
    """Those that are to be quantized and that a pipeline does not have, each in words."""
    names = [each.name for each in quantization.components]
    return [f"the pipeline has no {name} to quantize" for name in names if name not in present]


def decisions(
    quantization: Quantization, component: str, module: nn.Module
) -> Iterator[tuple[nn.Linear, Decision]]:
    """Of the linear layers of a component what each becomes; none where it is not quantized.

    Of a transformer these are the layers of its block lists, of anything else all of them. Names
    are those on the module.
    """
    own = quantization.of(component)
    if own is None:
        return
    lists = FAMILIES.get(type(module).__name__, {})
    regions = [(f"{name}.", getattr(module, name)) for name in lists] or [("", module)]
    for prefix, region in regions:
        for inner, layer in region.named_modules():
            if isinstance(layer, nn.Linear) and not isinstance(
                layer, NonDynamicallyQuantizableLinear
            ):
                name = prefix + inner
                yield layer, _decision(quantization, own, name, layer)


def _decision(
    quantization: Quantization, own: ComponentQuantization, name: str, layer: nn.Linear
) -> Decision:
    excluded = next((part for part in own.exclude_layers if part in name), None)
    if excluded is not None:
        return Decision(name, "", f"excluded by {excluded}")
    rules = [rule for rule in quantization.precision if rule.part in name]
    longest = max(rules, key=lambda rule: len(rule.part), default=None)
    kind = own.quant_type if longest is None else longest.quant_type
    outputs, inputs = layer.weight.shape
    multiple = MULTIPLES.get(kind, 1)
    if inputs % multiple or outputs % multiple:
        return Decision(name, "", f"{outputs} x {inputs} are no multiples of {multiple}")
    if kind == "float8_per_tensor" and outputs == inputs == FLOAT8_BLOCK:
        # torchao would take its one scale for that of a block.
        return Decision(name, "", f"{outputs} x {inputs} is the size of a block")
    if kind.startswith("int4") and inputs % INT4_GROUP:
        return Decision(name, "", f"{inputs} inputs are no multiple of {INT4_GROUP}")
    return Decision(name, kind)


@dataclass(frozen=True, slots=True)
class QuantizedLayers:
    """Layers of a component that were treated alike; ``name`` has * for the number of a block.

    ``weight_bytes``: of their weights with scales, on this rank.
    """

    component: str
    name: str
    count: int
    quant_type: str
    reason: str
    weight_bytes: int


def grouped(component: str, found: list[tuple[Decision, int]]) -> list[QuantizedLayers]:
    """What was decided and the bytes of each, blocks of a list together."""

    def alike(each: tuple[Decision, int]) -> tuple[str, str, str]:
        decision = each[0]
        return _NUMBER.sub("*", decision.name, count=1), decision.quant_type, decision.reason

    return [
        QuantizedLayers(component, name, len(same), kind, reason, sum(size for _, size in same))
        for (name, kind, reason), group in groupby(sorted(found, key=alike), key=alike)
        for same in [list(group)]
    ]
