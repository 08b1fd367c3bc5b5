"""Which executor can serve which work: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ditplan.v1 import executor_pb2, plan_pb2

from planner.codec import (
    model_from_proto,
    model_to_proto,
    placement_from_proto,
    placement_to_proto,
)
from planner.compile.plan import Placement, Program, Topology
from planner.models.components import VAE
from planner.models.facts import Architecture, ModelFacts

NATIVE_ATTENTION = "native"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a run needs of an executor, and equally what an executor holds.

    ``model`` is the name under which a model is served: two checkpoints of one architecture
    draw different pictures, so its architecture alone does not match. Of the ranks' mesh only what
    is settled when weights are loaded: ``tp_size``, and the text encoders that they share.
    ``attention_backend`` "": any. The placement is kept in the one form of all that mean the same.
    """

    model: str
    architecture: Architecture
    world_size: int
    placement: Placement
    tp_size: int = 1
    shared_encoders: tuple[str, ...] = ()
    attention_backend: str = ""

    def __post_init__(self) -> None:
        targets = [target.name for target in self.architecture.targets]
        object.__setattr__(self, "placement", _canonical(self.placement, targets))

    @classmethod
    def of(cls, model: str, program: Program) -> Requirement:
        mesh = program.topology
        return cls(
            model,
            program.model,
            mesh.world_size,
            program.placement,
            mesh.tp_size,
            shared_encoders(mesh),
            program.attention_backend,
        )

    @property
    def key(self) -> str:
        """Equal for equal requirements, in every process."""
        [key] = self.keys([self.attention_backend])
        return key

    def keys(self, attention_backends: Iterable[str]) -> list[str]:
        """The keys of the same requirement with each of these attention backends."""
        common = replace(self, attention_backend="").to_proto()
        digest = hashlib.sha256(common.SerializeToString(deterministic=True))
        digest.update(self.model.encode())
        found = []
        for backend in attention_backends:
            own = digest.copy()
            own.update(f"\0{backend}".encode())
            found.append(own.hexdigest())
        return found

    def to_proto(self) -> plan_pb2.Program:
        """All of it but the model's name, as the program that has nothing else."""
        return plan_pb2.Program(
            model=model_to_proto(self.architecture),
            topology=plan_pb2.Topology(
                world_size=self.world_size,
                tp_size=self.tp_size,
                extra_parallel_modules=self.shared_encoders,
            ),
            placement=placement_to_proto(self.placement),
            attention_backend=self.attention_backend,
        )

    @classmethod
    def from_proto(cls, model: str, message: plan_pb2.Program) -> Requirement:
        mesh = message.topology
        return cls(
            model,
            model_from_proto(message.model),
            mesh.world_size,
            placement_from_proto(message.placement),
            mesh.tp_size,
            tuple(mesh.extra_parallel_modules),
            message.attention_backend,
        )


def shared_encoders(mesh: Topology) -> tuple[str, ...]:
    """The modules that ranks split when they load them; a VAE is shared run by run."""
    return tuple(sorted(set(mesh.extra_parallel_modules) - {VAE}))


def _canonical(placement: Placement, targets: list[str]) -> Placement:
    names = dict.fromkeys([*targets, *(each.name for each in placement.components)])
    quantized = {name: found for name in names if (found := placement.of(name)) is not None}
    components = tuple(
        replace(quantized[name], exclude_layers=tuple(sorted(set(quantized[name].exclude_layers))))
        for name in sorted(quantized)
        if quantized[name].quant_type
    )
    if not components:
        return Placement()
    parts = {rule.part: rule for rule in reversed(placement.precision)}
    precision = tuple(parts[part] for part in sorted(parts))
    first = components[0]
    alike = {(each.quant_type, each.exclude_layers) for each in components}
    if len(alike) == 1 and [each.name for each in components] == sorted(targets):
        return Placement(first.quant_type, first.exclude_layers, (), precision)
    return Placement(components=components, precision=precision)


@dataclass(frozen=True, slots=True)
class Offer:
    """A connected executor's name, the model it has loaded, and what it holds.

    ``dtype`` of its transformers; ``device`` is "cpu" or a compute capability as "sm90"; both are
    empty where it does not say. ``announced``: what it last said of itself, without the configs of
    its checkpoint, which are ``configs``. ``keys`` are those of the requirements that it meets as
    it is.
    """

    executor: str
    facts: ModelFacts
    offered: Requirement
    dtype: str = ""
    device: str = ""
    attention_backends: tuple[str, ...] = (NATIVE_ATTENTION,)
    allow_reload: bool = False
    announced: executor_pb2.Executor | None = field(default=None, repr=False, compare=False)
    configs: Sequence[executor_pb2.ComponentConfig] = field(default=(), repr=False, compare=False)
    keys: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keys = self.offered.keys(("", *self.attention_backends))
        object.__setattr__(self, "keys", frozenset(keys))

    def reloaded(self, needed: Requirement) -> Offer:
        """The same executor once it has loaded its model anew for this."""
        held = replace(
            self.offered,
            placement=needed.placement,
            tp_size=needed.tp_size,
            shared_encoders=needed.shared_encoders,
        )
        return replace(self, offered=held)
