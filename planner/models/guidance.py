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


@dataclass(frozen=True, slots=True)
class Guidance:
    """``argument`` of the pipeline's call takes the scale; without one it is ``default_scale``.

    Guidance runs the transformer twice as soon as the scale exceeds ``threshold`` and, where the
    pipeline ``needs_negative_prompt``, one is given.
    """

    kind: GuidanceKind = GuidanceKind.NONE
    default_scale: float | None = None
    argument: str = "guidance_scale"
    threshold: float = 1.0
    needs_negative_prompt: bool = False

    def forwards(self, scale: float | None, *, negative_prompt: bool = False) -> int:
        """Forwards of one step."""
        return 2 if self.kind is GuidanceKind.SEPARATE and self._on(scale, negative_prompt) else 1

    def batch(self, scale: float | None, *, negative_prompt: bool = False) -> int:
        """Rows of the batch of one forward, for one picture or film."""
        return 2 if self.kind is GuidanceKind.BATCHED and self._on(scale, negative_prompt) else 1

    def _on(self, scale: float | None, negative_prompt: bool) -> bool:
        scale = self.default_scale if scale is None else scale
        wanted = scale is not None and scale > self.threshold
        return wanted and (negative_prompt or not self.needs_negative_prompt)


NO_GUIDANCE = Guidance()
