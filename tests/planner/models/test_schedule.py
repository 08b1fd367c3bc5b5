"""Timesteps and the handover between two transformers, against diffusers' schedulers."""

from __future__ import annotations

from typing import Any

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from planner.models.resolve import UnknownModelError, from_configs, from_name
from planner.models.schedule import FlowMatchEuler, UniPC, before_boundary, read_schedule

SHIFTS = (1.0, 2.22, 3.0, 5.0, 8.3, 12.0)
STEPS = range(1, 101)


def unipc(shift: float) -> Any:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


@pytest.mark.parametrize("shift", SHIFTS)
def test_timesteps_are_those_of_diffusers(shift: float) -> None:
    for real in (unipc(shift), FlowMatchEulerDiscreteScheduler(shift=shift)):
        mine = read_schedule({"_class_name": type(real).__name__} | dict(real.config))
        for steps in STEPS:
            real.set_timesteps(steps)
            assert mine.timesteps(steps) == real.timesteps.tolist(), (mine, steps)


@pytest.mark.parametrize("ratio", [0.29, 0.417, 0.57, 0.875, 0.9, 0.999])
def test_the_boundary_is_where_the_pipeline_draws_it(ratio: float) -> None:
    for shift in SHIFTS:
        for real, mine in (
            (unipc(shift), UniPC(shift)),
            (FlowMatchEulerDiscreteScheduler(shift=shift), FlowMatchEuler(shift)),
        ):
            for steps in STEPS:
                real.set_timesteps(steps)
                boundary = ratio * real.config.num_train_timesteps
                expected = sum(bool(t >= boundary) for t in real.timesteps)
                assert before_boundary(mine, ratio, steps) == expected, (mine, steps)


def test_two_transformers_share_the_steps() -> None:
    facts = from_name("Wan-AI/Wan2.2-T2V-A14B-Diffusers")
    assert facts.steps_of("transformer", 40) == range(13)
    assert facts.steps_of("transformer_2", 40) == range(13, 40)
    one = from_name("Wan-AI/Wan2.1-T2V-14B-Diffusers")
    assert one.steps_of("transformer", 40) == range(40)


CONFIGS: dict[str, Any] = {
    "model_index.json": {"_class_name": "WanPipeline", "boundary_ratio": 0.875},
    "transformer/config.json": {},
    "transformer_2/config.json": {},
    "scheduler/scheduler_config.json": {
        "_class_name": "UniPCMultistepScheduler",
        "use_flow_sigmas": True,
    },
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_class_name": "DDIMScheduler"}, "DDIMScheduler"),
        ({"use_flow_sigmas": False}, "use_flow_sigmas"),
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas"),
        ({"shift_terminal": 0.1}, "shift_terminal"),
        ({"flow_shift": 0}, "flow_shift"),
        ({"flow_shift": "3"}, "flow_shift"),
        ({"flow_shift": float("nan")}, "flow_shift"),
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
    ],
)
def test_a_schedule_that_is_not_known_is_refused(changes: dict[str, Any], says: str) -> None:
    assert from_configs(CONFIGS, name="pair").handover is not None
    path = "scheduler/scheduler_config.json"
    with pytest.raises(UnknownModelError, match=says):
        from_configs(CONFIGS | {path: CONFIGS[path] | changes}, name="pair")


@pytest.mark.parametrize(
    "missing", ["transformer_2/config.json", "scheduler/scheduler_config.json"]
)
def test_a_pair_needs_both_and_its_scheduler(missing: str) -> None:
    configs = {path: config for path, config in CONFIGS.items() if path != missing}
    with pytest.raises(UnknownModelError, match=f"{missing} is missing"):
        from_configs(configs, name="pair")
