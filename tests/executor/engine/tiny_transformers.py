"""The tiny transformers of the recorded traces as models to run: one of each family."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from executor.codec import program_from_proto
from executor.engine.program import Program
from planner.codec import program_to_proto
from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from tests.conformance.oracle_models import build_model, denoise, make_inputs
from tests.conformance.traces import facts_of

FAMILIES = ("flux", "flux2", "qwen", "wan", "zimage", "hunyuan")
WITH_CFG = ("qwen", "wan")
_RECORDED = Path(__file__).parents[2] / "data" / "oracle" / "dbcache_traces.json"


@cache
def _meta() -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(_RECORDED.read_text())["meta"]
    return meta


@dataclass(frozen=True)
class TinyTransformer:
    """``sides`` of the latents; None as recorded."""

    family: str
    sides: tuple[int, int] | None = None
    dtype: torch.dtype = torch.float32

    @cached_property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = _meta()["model_specs"][self.family]
        geometry = dict(spec["geometry"])
        if self.sides is not None:
            geometry["h"], geometry["w"] = self.sides
        return spec | {"geometry": geometry}

    def build(self) -> nn.Module:
        meta = _meta()
        model = build_model(self.spec, seed=meta["model_seed"], time_gain=meta["time_gain"])
        return model.to(self.dtype)

    @property
    def facts(self) -> ModelFacts:
        """With the length that the prompts have here."""
        facts = facts_of(self.family, self.spec)
        assert facts.sequence is not None
        prompt = self.spec["geometry"]["txt"]
        return replace(facts, sequence=replace(facts.sequence, prompt=prompt))

    def compile(
        self, config: str, steps: int, *, guided: bool = False, world_size: int | None = None
    ) -> Compilation:
        """Compiles for the size of the latents, in pixels and frames."""
        geometry, facts = self.spec["geometry"], self.facts
        assert facts.sequence is not None
        # Two latents to a token, or one where the pipeline packs them beforehand.
        packed = 1 if self.family in ("flux", "flux2", "qwen") else 2
        pixels = facts.sequence.patch // packed
        frames = (geometry["f"] - 1) * facts.sequence.frames + 1 if "f" in geometry else None
        unguided = 0.0 if self.family == "zimage" else 1.0
        return compile_config(
            config,
            facts,
            Request(
                steps,
                world_size,
                height=geometry["h"] * pixels,
                width=geometry["w"] * pixels,
                num_frames=frames,
                guidance_scale=4.0 if guided else unguided,
                negative_prompt=guided,
                dtype=str(self.dtype).removeprefix("torch."),
            ),
        )

    def inputs(self, seed: int = 1) -> dict[str, Tensor]:
        inputs = make_inputs(self.family, self.spec, seed=seed)
        return {
            name: value if name.endswith("_ids") else value.to(self.dtype)
            for name, value in inputs.items()
        }

    def denoise(
        self, model: nn.Module, steps: int, *, seed: int = 1, guided: bool = False
    ) -> Iterator[Tensor]:
        """The latents after each step."""
        return denoise(
            self.family,
            model,
            self.inputs(seed),
            self.spec["geometry"],
            _meta()["scheduler"],
            steps,
            2 if guided else 1,
        )


def executable(compilation: Compilation) -> Program:
    assert compilation.program is not None, compilation.diagnostics
    return program_from_proto(program_to_proto(compilation.program))


def static(mask: str, keys: Mapping[str, Any] | None = None) -> str:
    """A config whose steps are decided: 1 is computed, 0 is cached."""
    given = {"Fn_compute_blocks": 1, "max_warmup_steps": 1, **(keys or {})}
    return json.dumps(
        {
            "cache_config": {
                **given,
                "steps_computation_policy": "static",
                "steps_computation_mask": [int(each) for each in mask],
            }
        }
    )


def adaptive(threshold: float, keys: Mapping[str, Any] | None = None) -> str:
    """A config whose steps after the first are decided at run time."""
    given = {"Fn_compute_blocks": 1, "max_warmup_steps": 1, **(keys or {})}
    return json.dumps({"cache_config": {**given, "residual_diff_threshold": threshold}})
