"""What the compiler needs to know about a model, whatever source it was read from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BlockList:
    """A list of transformer blocks, by its attribute on the transformer."""

    name: str
    num_blocks: int


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """One transformer of a pipeline.

    ``groups`` are the block groups: each names the lists that are computed or cached as a whole.
    """

    name: str
    transformer_class: str
    block_lists: tuple[BlockList, ...]
    num_attention_heads: int
    attention_head_dim: int
    groups: tuple[tuple[str, ...], ...] = field(compare=False)

    def num_blocks(self, group: tuple[str, ...]) -> int:
        return sum(b.num_blocks for b in self.block_lists if b.name in group)


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """What a request gets that does not say; sizes in pixels, ``size_multiple`` of both sides."""

    num_inference_steps: int
    height: int
    width: int
    size_multiple: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The architecture a plan is for. Two are equal when a plan for one fits the other."""

    family: str
    pipeline_class: str
    targets: tuple[TargetFacts, ...]
    defaults: ModelDefaults = field(compare=False)
    guidance_embeds: bool = field(compare=False, default=False)

    def target(self, name: str) -> TargetFacts:
        return next(t for t in self.targets if t.name == name)
