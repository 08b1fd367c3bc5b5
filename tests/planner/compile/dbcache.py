"""DBCache as it runs: one forward after the other, with counters and residual diffs.

Written from the semantics of Cache-DiT alone and shares nothing with the compiler, so that the two
can be held against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass
class Settings:
    """A ``cache_config`` as Cache-DiT holds it: -1 is unlimited, 0 or None is off."""

    residual_diff_threshold: float = 0.08
    max_warmup_steps: int = 8
    warmup_interval: int = 1
    max_cached_steps: int = -1
    max_continuous_cached_steps: int = -1
    max_accumulated_residual_diff_threshold: float | None = None
    steps_computation_mask: list[int] | None = None
    steps_computation_policy: str = "dynamic"
    force_refresh_step_hint: int | None = None
    force_refresh_step_policy: str = "once"


@dataclass
class Context:
    """What Cache-DiT keeps between forwards; a refresh begins a new one."""

    step: int = -1
    cached_steps: list[int] = field(default_factory=list)
    streak: int = 0
    accumulated: float = 0.0
    has_buffer: bool = False


def run(settings: Settings, diffs: Sequence[float]) -> list[bool]:
    """For every step whether all blocks are computed, given the diff that a test would see."""
    computed = []
    context = Context()
    hint = settings.force_refresh_step_hint
    for diff in diffs:
        if hint is not None and context.step == hint - 1:
            context = Context()
            if settings.force_refresh_step_policy == "once":
                hint = None
        context.step += 1
        if not context.cached_steps or context.cached_steps[-1] != context.step - 1:
            context.streak = 0
        if is_hit(settings, context, diff):
            context.streak += 1
            context.cached_steps.append(context.step)
            computed.append(False)
        else:
            context.has_buffer = True
            computed.append(True)
    return computed


def every_outcome(settings: Settings, steps: int, diffs: Sequence[float]) -> set[str]:
    """Every run that these diffs can make, one in each step: F computed, c cached."""
    found: set[str] = set()

    def follow(context: Context, hint: int | None, done: str) -> None:
        if len(done) == steps:
            found.add(done)
            return
        if hint is not None and context.step == hint - 1:
            context = Context()
            hint = None if settings.force_refresh_step_policy == "once" else hint
        seen = set()
        for diff in diffs:
            after = replace(context, step=context.step + 1, cached_steps=list(context.cached_steps))
            if not after.cached_steps or after.cached_steps[-1] != after.step - 1:
                after.streak = 0
            hit = is_hit(settings, after, diff)
            if (hit, after.accumulated) in seen:
                continue
            seen.add((hit, after.accumulated))
            if hit:
                after.streak += 1
                after.cached_steps.append(after.step)
            else:
                after.has_buffer = True
            follow(after, hint, done + ("c" if hit else "F"))

    follow(Context(), settings.force_refresh_step_hint, "")
    return found


def is_hit(settings: Settings, context: Context, diff: float) -> bool:
    mask, step = settings.steps_computation_mask, context.step
    warmup = settings.max_warmup_steps
    if mask is not None:
        leading_ones = 0
        while leading_ones < len(mask) and mask[leading_ones] == 1:
            leading_ones += 1
        warmup = min(warmup, leading_ones)
    if step in set(range(0, warmup, settings.warmup_interval)):
        return False
    if mask is not None and step < len(mask) and mask[step] == 1:
        return False
    if mask is not None and settings.steps_computation_policy == "static":
        return True
    if 0 <= settings.max_cached_steps <= len(context.cached_steps):
        return False
    if 0 <= settings.max_continuous_cached_steps <= context.streak:
        return False
    most = settings.max_accumulated_residual_diff_threshold
    if most is not None and most > 0 and context.accumulated >= most:
        return False
    if settings.residual_diff_threshold <= 0:
        return False
    if not context.has_buffer:
        return False
    if settings.residual_diff_threshold >= 1.0:
        return True
    if diff > 0:
        context.accumulated += diff
    return diff < settings.residual_diff_threshold
