"""How many tokens a size has."""

from __future__ import annotations

from dataclasses import dataclass

from planner.models.layers import TokenCounts


@dataclass(frozen=True, slots=True)
class SequenceRule:
    """Tokens of one forward by height, width (pixels) and number of frames.

    One latent token covers ``patch`` x ``patch`` pixels; the first frame and then every
    ``frames`` frames make one layer of them. Where a pipeline pads prompts, ``prompt`` is that
    length; where it does not, the longest that it accepts. ``reference`` tokens of pictures to be
    edited come with the latent ones. Image and text are each padded to a multiple of ``multiple``.
    """

    patch: int
    prompt: int
    frames: int = 1
    glyph: int = 0
    vision: int = 0
    vision_in_text: bool = False
    reference: int = 0
    multiple: int = 1

    def counts(self, height: int, width: int, num_frames: int | None = None) -> TokenCounts:
        layers = ((num_frames or 1) - 1) // self.frames + 1
        image = layers * (height // self.patch) * (width // self.patch) + self.reference
        text = self.prompt + self.glyph + (self.vision if self.vision_in_text else 0)
        return TokenCounts(
            image=self._padded(image),
            text=self._padded(text),
            prompt=self._padded(self.prompt),
            glyph=self.glyph,
            vision=self.vision,
        )

    def _padded(self, tokens: int) -> int:
        return -(-tokens // self.multiple) * self.multiple
