"""``dbcache_traces.json`` and ``.npz``: whole runs of tiny models under a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from executor.codec import program_from_proto
from executor.engine.execution import Execution
from executor.engine.program import Branch, OpKind, OpOutcome
from planner.codec import program_to_proto
from planner.compile.compiler import Compilation, compile_config
from planner.compile.request import Request
from planner.models.facts import ModelFacts
from planner.models.resolve import from_configs
from tests.conformance.oracle_models import build_model, denoise, make_inputs, weight_hash
from tests.conformance.verdict import MismatchError, NotSupportedError, expect

TOLERANCE = 1e-4
"""Largest absolute difference of latents and residual diffs."""

_PIPELINES = {
    "flux": "FluxPipeline",
    "flux2": "Flux2Pipeline",
    "qwen": "QwenImagePipeline",
    "wan": "WanPipeline",
    "zimage": "ZImagePipeline",
    "hunyuan": "HunyuanVideoPipeline",
}


def cases(
    recorded: dict[str, Any], arrays: Mapping[str, np.ndarray], device: str = "cpu"
) -> Iterator[tuple[str, Callable[[], None]]]:
    traces = _Traces(recorded["meta"], arrays, device)
    for case in recorded["cases"]:
        yield case["name"], partial(traces.check, case)


def facts_of(family: str, spec: dict[str, Any]) -> ModelFacts:
    configs = {
        "model_index.json": {"_class_name": _PIPELINES[family]},
        "transformer/config.json": {"_class_name": spec["cls"], **spec["kwargs"]},
        "scheduler/scheduler_config.json": {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "shift": 3.0,
        },
    }
    return from_configs(configs, name=family)


class _Traces:
    def __init__(self, meta: dict[str, Any], arrays: Mapping[str, np.ndarray], device: str) -> None:
        self._meta = meta
        self._arrays = arrays
        self._device = device
        self._model = cache(self._build)

    def check(self, case: dict[str, Any]) -> None:
        family, steps = case["family"], case["steps"]
        spec = self._meta["model_specs"][family]
        if family not in _PIPELINES:
            raise NotSupportedError(f"family {family}")
        if case["opts"] or case["extra"]:
            raise NotSupportedError(f"options {case['opts']} {case['extra']}")
        compiled = self._compile(case, spec)
        assert compiled.program is not None
        assert compiled.estimate is not None
        model = self._model(family)
        expect("weights", weight_hash(model), case["model_sha256"])
        model.to(self._device)
        torch.set_num_threads(self._meta["threads"])
        inputs = make_inputs(family, spec, seed=self._meta["input_seed"])
        for name, value in inputs.items():
            if f"input.{family}.{name}" in self._arrays:
                recorded = torch.from_numpy(self._arrays[f"input.{family}.{name}"])
                expect(f"input {name}", torch.equal(value, recorded), True)
        inputs = {name: value.to(self._device) for name, value in inputs.items()}
        program = program_from_proto(program_to_proto(compiled.program))
        execution = Execution({"transformer": model}, program)
        outcomes: list[tuple[OpOutcome | None, ...]] = []
        latents = inputs["latents"]
        with execution.attached():
            for after in denoise(
                family,
                model,
                inputs,
                spec["geometry"],
                self._meta["scheduler"],
                steps,
                len({column.branch for column in program.columns}),
            ):
                latents = after
                outcomes.append(execution.end_step())
        for c, column in enumerate(program.columns):
            name = column.block_lists[0]
            ops = [ops[c] for ops in outcomes]
            self._check_decisions(name, case["contexts"][name], column.branch, ops)
        computed = sum(any(op.kind is OpKind.FULL for op in ops if op) for ops in outcomes)
        estimate = compiled.estimate
        if not estimate.min_computed_steps <= computed <= estimate.max_computed_steps:
            raise MismatchError(f"{computed} computed steps lie outside the plan's {estimate}")
        final = torch.from_numpy(self._arrays[f"final.{case['name']}"])
        difference = float((latents.cpu() - final).abs().max())
        if not difference <= TOLERANCE:
            raise MismatchError(f"latents differ by {difference:.2e}")

    def _compile(self, case: dict[str, Any], spec: dict[str, Any]) -> Compilation:
        guidance = spec["geometry"].get("cfg")
        compiled = compile_config(
            json.dumps(case["yaml"]),
            facts_of(case["family"], spec),
            Request(
                num_inference_steps=case["steps"],
                guidance_scale=guidance,
                negative_prompt=guidance is not None,
            ),
        )
        if compiled.program is None:
            unsupported = [d for d in compiled.diagnostics if d.code.startswith("unsupported")]
            message = "; ".join(d.message for d in compiled.diagnostics)
            if unsupported:
                raise NotSupportedError(message)
            raise MismatchError(f"refused: {message}")
        return compiled

    def _build(self, family: str) -> nn.Module:
        spec = self._meta["model_specs"][family]
        return build_model(spec, seed=self._meta["model_seed"], time_gain=self._meta["time_gain"])

    @staticmethod
    def _check_decisions(
        name: str, context: dict[str, Any], branch: Branch, ops: list[Any]
    ) -> None:
        unconditional = branch is Branch.UNCOND
        name = f"{name} {branch.value}"
        computed = "".join("1" if op.kind is OpKind.FULL else "0" for op in ops)
        expect(name, computed, context["cfg_computed_mask" if unconditional else "computed_mask"])
        decisions = [each for each in context["decisions"] if each["cfg"] is unconditional]
        for step, (op, recorded) in enumerate(zip(ops, decisions, strict=True)):
            # The peer also evaluates the diff of some steps that the plan decides ahead.
            if op.residual_diff is None:
                continue
            wanted = recorded["diff"]
            if wanted is None or abs(op.residual_diff - wanted) > TOLERANCE:
                raise MismatchError(
                    f"{name} residual diff of step {step}: {op.residual_diff}, recorded {wanted}"
                )
