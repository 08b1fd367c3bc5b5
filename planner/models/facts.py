"""What the compiler needs to know about a model, whatever source it was read from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from planner.models.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from planner.models.layers import Rows, Shape
from planner.models.lengths import SequenceRule
from planner.models.schedule import Schedule, before_boundary


@dataclass(frozen=True, slots=True)
class BlockList:
    """A list of transformer blocks, by its attribute on the transformer."""

    name: str
    num_blocks: int


@dataclass(frozen=True, slots=True)
class Target:
    """One transformer of a pipeline."""

    name: str
    transformer_class: str
    block_lists: tuple[BlockList, ...]
    num_attention_heads: int
    attention_head_dim: int

    @property
    def hidden_size(self) -> int:
        """Channels of the hidden stream."""
        return self.num_attention_heads * self.attention_head_dim

    def num_blocks(self, block_lists: tuple[str, ...]) -> int:
        """Blocks of the named lists together."""
        return sum(b.num_blocks for b in self.block_lists if b.name in block_lists)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a plan is for: a plan for one checkpoint fits every other of an equal architecture."""

    family: str
    pipeline_class: str
    targets: tuple[Target, ...]

    def target(self, name: str) -> Target:
        return next(t for t in self.targets if t.name == name)


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """The block lists of a target that are computed or cached as a whole, in execution order.

    ``streams``: what passes from block to block, the hidden stream first.
    """

    target: str
    block_lists: tuple[str, ...]
    streams: tuple[Rows, ...] = (Rows.IMAGE, Rows.TEXT)


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a request gets that does not say, which is what the pipeline's call does.

    Sizes in pixels, ``size_multiple`` of both sides. ``num_frames`` None: it makes pictures; else
    one more than a multiple of ``frame_multiple``. ``follows_picture``: the size has the
    proportions of the picture that the run starts from, at the area of the default one.
    """

    num_inference_steps: int
    height: int
    width: int
    size_multiple: int
    num_frames: int | None = None
    frame_multiple: int = 1
    follows_picture: bool = False

    def size_for(self, picture: tuple[int, int]) -> tuple[int, int]:
        """Height and width for a picture of this width and height, as diffusers chooses them."""
        width, height = picture
        ratio = width / height
        target = math.sqrt(self.height * self.width * ratio)
        multiple = self.size_multiple

        def side(pixels: float) -> int:
            return max(round(pixels / 32) * 32 // multiple * multiple, multiple)

        return side(target / ratio), side(target)


@dataclass(frozen=True, slots=True)
class Handover:
    """Where the first of two targets hands over to the second.

    The first has the steps whose timestep is at least ``boundary_ratio`` of the training timesteps.
    """

    boundary_ratio: float
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model: its architecture, how its family caches it, and what a request may leave out.

    ``groups`` are in the order in which one step runs them. ``shapes`` and ``sequence`` say what a
    forward multiplies; a model without them has no cost estimate. Without ``handover`` every
    target runs in every step. A run starts from 1 to ``max_pictures`` pictures, or from none.
    """

    architecture: Architecture
    groups: tuple[BlockGroup, ...]
    defaults: ModelDefaults
    guidance: Guidance = NO_GUIDANCE
    handover: Handover | None = None
    sequence: SequenceRule | None = None
    shapes: tuple[Shape, ...] = ()
    max_pictures: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Of the hundreds of values of a model that is looked up again and again.
        key = self.architecture, self.groups, self.defaults, self.guidance, self.handover
        object.__setattr__(self, "_hash", hash((*key, self.sequence, self.shapes)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def guidance_embeds(self) -> bool:
        """Whether the guidance scale is an input of the transformer."""
        return self.guidance.kind is GuidanceKind.EMBEDDED

    def steps_of(self, target: str, num_inference_steps: int) -> range:
        """The steps in which a target runs."""
        if self.handover is None:
            return range(num_inference_steps)
        first = before_boundary(
            self.handover.schedule, self.handover.boundary_ratio, num_inference_steps
        )
        if target == self.architecture.targets[0].name:
            return range(first)
        return range(first, num_inference_steps)

    def shape(self, target: str) -> Shape | None:
        return next((shape for shape in self.shapes if shape.target == target), None)
