"""What the compiler needs to know about a model, whatever source it was read from."""

from __future__ import annotations

from dataclasses import dataclass


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
    """The block lists of a target that are computed or cached as a whole, in execution order."""

    target: str
    block_lists: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a request gets that does not say; sizes in pixels, ``size_multiple`` of both sides."""

    num_inference_steps: int
    height: int
    width: int
    size_multiple: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model: its architecture, how its family caches it, and what a request may leave out.

    ``groups`` are in the order in which one step runs them.
    """

    architecture: Architecture
    groups: tuple[BlockGroup, ...]
    defaults: ModelDefaults
    guidance_embeds: bool = False
