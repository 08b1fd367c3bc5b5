"""When guidance runs the transformer twice."""

from __future__ import annotations

import pytest

from planner.models.guidance import NO_GUIDANCE, Guidance, GuidanceKind, NegativePrompt

SEPARATE = Guidance(GuidanceKind.SEPARATE, 5.0, negative_prompt=NegativePrompt.OPTIONAL)
NEEDY = Guidance(GuidanceKind.SEPARATE, 4.0, negative_prompt=NegativePrompt.REQUIRED)
GUIDER = Guidance(GuidanceKind.SEPARATE, 6.0, below_too=True)
BATCHED = Guidance(GuidanceKind.BATCHED, 5.0, threshold=0.0)


@pytest.mark.parametrize(
    ("guidance", "scale", "negative_prompt", "forwards"),
    [
        (NO_GUIDANCE, 7.0, True, 1),
        (Guidance(GuidanceKind.EMBEDDED, 3.5), 7.0, True, 1),
        (SEPARATE, None, False, 2),
        (SEPARATE, 1.0, True, 1),
        (SEPARATE, 0.5, True, 1),
        (NEEDY, None, False, 1),
        (NEEDY, None, True, 2),
        (NEEDY, 1.0, True, 1),
        (GUIDER, None, False, 2),
        (GUIDER, 1.0, False, 1),
        # A guider weighs the two predictions for every scale but 1.
        (GUIDER, 0.5, False, 2),
        (BATCHED, 5.0, True, 1),
    ],
)
def test_forwards_of_a_step(
    guidance: Guidance, scale: float | None, negative_prompt: bool, forwards: int
) -> None:
    assert guidance.forwards(scale, negative_prompt=negative_prompt) == forwards


@pytest.mark.parametrize(("scale", "rows"), [(None, 2), (0.5, 2), (0.0, 1)])
def test_a_batched_forward_has_twice_the_rows(scale: float | None, rows: int) -> None:
    assert BATCHED.batch(scale) == rows
    assert SEPARATE.batch(scale) == 1
