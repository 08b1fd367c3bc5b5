"""Which executor can serve which work: pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ditplan.v1 import plan_pb2

from planner.codec import model_to_proto, placement_to_proto
from planner.compile.plan import Placement, Program, Topology
from planner.models.components import VAE
from planner.models.facts import Architecture, ModelFacts


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a run needs of an executor, and equally what an executor offers.

    ``model`` is the name under which a model is served: two checkpoints of one architecture
    draw different pictures, so its architecture alone does not match. Of the ranks' mesh only what
    is settled when weights are loaded: ``tp_size``, and the text encoders that they share.
    """

    model: str
    architecture: Architecture
    world_size: int
    placement: Placement
    tp_size: int = 1
    shared_encoders: tuple[str, ...] = ()

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
        )

    @property
    def key(self) -> str:
        """Equal for equal requirements, in every process."""
        message = plan_pb2.Program(
            model=model_to_proto(self.architecture),
            topology=plan_pb2.Topology(
                world_size=self.world_size,
                tp_size=self.tp_size,
                extra_parallel_modules=self.shared_encoders,
            ),
            placement=placement_to_proto(
                replace(self.placement, exclude_layers=tuple(sorted(self.placement.exclude_layers)))
            ),
        )
        digest = hashlib.sha256(message.SerializeToString(deterministic=True))
        digest.update(self.model.encode())
        return digest.hexdigest()


def shared_encoders(mesh: Topology) -> tuple[str, ...]:
    """The modules that ranks split when they load them; a VAE is shared run by run."""
    return tuple(sorted(set(mesh.extra_parallel_modules) - {VAE}))


@dataclass(frozen=True, slots=True)
class Offer:
    """A connected executor's name, the model it has loaded, and what it offers.

    ``dtype`` of its transformers; empty where it does not say.
    """

    executor: str
    facts: ModelFacts
    offered: Requirement
    dtype: str = ""


def differences(needed: Requirement, offered: Requirement) -> list[str]:
    """Why an executor cannot serve the work, in words; empty exactly where the keys are equal."""
    if needed.model != offered.model:
        return [f"serves model {offered.model!r}"]
    found = []
    if needed.architecture != offered.architecture:
        found.append("its checkpoint has another architecture")
    if needed.world_size != offered.world_size:
        found.append(f"world size is {offered.world_size}, the plan needs {needed.world_size}")
    if needed.tp_size != offered.tp_size:
        found.append(f"tp_size is {offered.tp_size}, the plan needs {needed.tp_size}")
    if needed.shared_encoders != offered.shared_encoders:
        found.append(
            f"the ranks share {', '.join(offered.shared_encoders) or 'no text encoder'}, "
            f"the plan needs {', '.join(needed.shared_encoders) or 'none'}"
        )
    if needed.placement.quant_type != offered.placement.quant_type:
        found.append(
            f"quantization is {offered.placement.quant_type or 'none'}, "
            f"the plan needs {needed.placement.quant_type or 'none'}"
        )
    mine, theirs = (sorted(r.placement.exclude_layers) for r in (needed, offered))
    if mine != theirs:
        found.append(
            f"layers excluded from quantization are {', '.join(theirs) or 'none'}, "
            f"the plan needs {', '.join(mine) or 'none'}"
        )
    for name in ("components", "precision"):
        if getattr(needed.placement, name) != getattr(offered.placement, name):
            found.append(f"other layers are quantized there ({name} of the placement)")
    return found


def why_none_matches(needed: Requirement, offers: Sequence[Offer]) -> str | None:
    """None where an offer matches, else what differs for every connected executor."""
    if not offers:
        return "no executor is connected"
    found = {offer.executor: differences(needed, offer.offered) for offer in offers}
    if any(not differs for differs in found.values()):
        return None
    listed = "; ".join(f"{name}: {', '.join(differs)}" for name, differs in found.items())
    if all(offer.offered.model != needed.model for offer in offers):
        count = len(offers)
        return (
            f"model {needed.model!r} is not served by any of {count} connected "
            f"executor{'s' if count > 1 else ''} ({listed})"
        )
    return f"no connected executor matches ({listed})"
