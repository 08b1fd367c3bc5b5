"""How a family applies guidance, and what that makes of one step."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class GuidanceKind(Enum):
    NONE = "none"
    EMBEDDED = "embedded"
    """The scale is an input of the transformer."""
    SEPARATE = "separate"
    """Two forwards a step, with the prompt and with the negative one."""
    BATCHED = "batched"
    """One forward of twice the batch."""


class NegativePrompt(Enum):
    """What a negative prompt is to guidance."""

    UNUSED = "unused"
    OPTIONAL = "optional"
    """Without one, guidance leads away from the empty prompt."""
    REQUIRED = "required"
    """Without one, there is no guidance."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """A request without a scale gets ``default_scale``.

    Guidance runs the transformer twice as soon as the scale exceeds ``threshold`` (``below_too``:
    or falls below it) and, where a negative prompt is REQUIRED, one is given.
    """

    kind: GuidanceKind = GuidanceKind.NONE
    default_scale: float | None = None
    threshold: float = 1.0
    below_too: bool = False
    negative_prompt: NegativePrompt = NegativePrompt.UNUSED

    def forwards(self, scale: float | None, *, negative_prompt: bool = False) -> int:
        """Forwards of one step."""
        separate = self.kind is GuidanceKind.SEPARATE
        return 2 if separate and self.is_on(scale, negative_prompt=negative_prompt) else 1

    def batch(self, scale: float | None, *, negative_prompt: bool = False) -> int:
        """Rows of the batch of one forward, for one picture or film."""
        batched = self.kind is GuidanceKind.BATCHED
        return 2 if batched and self.is_on(scale, negative_prompt=negative_prompt) else 1

    def scale(self, asked: float | None) -> float:
        """The scale of a request, which may leave it open."""
        return (self.default_scale or 0.0) if asked is None else asked

    def is_on(self, asked: float | None, *, negative_prompt: bool) -> bool:
        """Whether the transformer runs on the negative prompt too."""
        scale = self.scale(asked)
        wanted = scale > self.threshold or (self.below_too and scale < self.threshold)
        return wanted and (negative_prompt or self.negative_prompt is not NegativePrompt.REQUIRED)


NO_GUIDANCE = Guidance()
