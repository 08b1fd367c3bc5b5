"""Says what a cache cannot deliver, and which key is in the way."""

from __future__ import annotations

from dataclasses import replace

from planner.compile.counters import Bounds
from planner.compile.rule import CacheRule, schedule
from planner.config.acceleration import AccelerationConfig
from planner.diagnostics import Severity

_SECTION = "cache_config"


def explain_bounds(
    config: AccelerationConfig, rule: CacheRule, steps: int, reached: Bounds, share: str
) -> None:
    """Reports where the rule computes more steps than the mask or the cache lets expect.

    ``share`` says of which steps of a run, if not of all.
    """
    if reached.min_computed == steps:
        key, why = _why_never_cached(rule, steps)
        all_of = "the only step is" if steps == 1 else f"all {steps} steps are"
        config.report(
            Severity.WARNING,
            "never-cached",
            (_SECTION, *key),
            f"{share}{all_of} computed: {why}",
            at_key=True,
        )
        return
    if rule.mask is None or rule.static_mask:
        return
    ones = sum(rule.mask)
    path = (_SECTION, "steps_computation_mask")
    if reached.min_computed > ones:
        keys = _limiting_keys(rule, steps, reached.min_computed)
        config.report(
            Severity.WARNING,
            "mask-not-reached",
            path,
            f"{share}the mask computes {ones} of {steps} steps, but {' and '.join(keys)} "
            f"{'allows' if len(keys) == 1 else 'allow'} no fewer than {reached.min_computed}; "
            f"at most {reached.max_computed} are computed",
            "steps_computation_policy: static  # follows the mask exactly",
        )
    elif reached.max_computed > ones:
        config.report(
            Severity.HINT,
            "mask-is-permission",
            path,
            f"{share}under the dynamic policy the mask permits caching: {reached.min_computed} to "
            f"{reached.max_computed} of {steps} steps are computed",
            "steps_computation_policy: static  # follows the mask exactly",
        )


def _limiting_keys(rule: CacheRule, steps: int, reached: int) -> list[str]:
    """The keys without which fewer steps could be computed."""
    relaxed = {
        "max_continuous_cached_steps": replace(
            rule, test=replace(rule.test, max_continuous_cached_steps=None)
        ),
        "max_cached_steps": replace(rule, test=replace(rule.test, max_cached_steps=None)),
        "force_refresh_step_hint": replace(rule, refresh_steps=frozenset()),
    }
    limiting = [
        key for key, other in relaxed.items() if schedule(other, steps)[1].min_computed < reached
    ]
    return limiting or ["the limits together"]


def _why_never_cached(rule: CacheRule, steps: int) -> tuple[tuple[str, ...], str]:
    """The key that keeps every step from being cached, if it is one, and in words."""
    test = rule.test
    if steps == 1:
        return (), "there is nothing before it that could be reused"
    if rule.mask is not None and all(rule.mask):
        return ("steps_computation_mask",), "the mask computes every step"
    if schedule(replace(rule, refresh_steps=frozenset()), steps)[1].min_computed < steps:
        key = "force_refresh_step_hint"
        return (key,), f"{key} forgets the cache before anything of it is used"
    if test.residual_diff_threshold <= 0:
        key = "residual_diff_threshold"
        return (key,), f"{key} is {test.residual_diff_threshold:g}"
    for key in ("max_cached_steps", "max_continuous_cached_steps"):
        if getattr(test, key) == 0:
            return (key,), f"{key} is 0"
    key = "max_warmup_steps"
    return (key,), f"{key} {rule.max_warmup_steps} leaves none of {steps} steps to cache"
