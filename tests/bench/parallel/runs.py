"""Jobs for ranks: cached runs of the demo model, whose collectives are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import Tensor

from executor.engine.program import OpKind, Program
from executor.engine.run import RunSpec, run
from executor.engine.sharing import Exchanges
from executor.parallel.mesh import World
from executor.parallel.sharing import Sharing
from executor.placement.device import DeviceChoice
from executor.placement.load import load
from tests.bench.inputs import DEMO
from tests.bench.parallel.forwards import share_weights

STEPS, SIDE = 28, 64
SPEC = RunSpec("a yellow star at the top right on a blue background", SIDE, SIDE, seed=1)


@dataclass(frozen=True, slots=True)
class Counted:
    """What a run exchanged on this rank, the bytes of each of its all-reduces, steps computed."""

    exchanges: Exchanges
    reduces: tuple[int, ...]
    computed: int


@contextmanager
def _counted_reduces() -> Iterator[list[int]]:
    """Bytes of every all-reduce, whoever calls it. An average, which gloo lacks, is made a sum."""
    found: list[int] = []
    real = dist.all_reduce

    def all_reduce(tensor: Tensor, op: Any = dist.ReduceOp.SUM, **options: Any) -> Any:
        found.append(tensor.nbytes)
        if op != dist.ReduceOp.AVG:
            return real(tensor, op, **options)
        work = real(tensor, **options)
        tensor.div_(dist.get_world_size())
        return work

    dist.all_reduce = all_reduce
    try:
        yield found
    finally:
        dist.all_reduce = real


def planned_runs(world: World, programs: Sequence[Program]) -> list[Counted]:
    """One run after the other, each under its own topology."""
    found = []
    for program in programs:
        sharing = Sharing(world, program.topology)
        pipeline = _pipeline(program.topology.tp_size)
        share_weights(pipeline.transformer, world, program.topology)
        with _counted_reduces() as reduces:
            result = run(pipeline, program, SPEC, sharing=sharing, decodes=False)
        computed = sum(op.kind is OpKind.FULL for step in result.steps for op in step.ops if op)
        found.append(Counted(result.exchanges, tuple(reduces), computed))
    return found


@cache
def _pipeline(tp_size: int) -> Any:
    """One for every number of ranks that its weights are split over."""
    return load(str(DEMO), device=DeviceChoice.CPU).pipeline


def peer_runs(world: World, configs: Sequence[str]) -> list[Counted]:
    """Cache-DiT's, every rank a whole model: its test is parallel wherever a world has ranks."""
    import cache_dit

    pipeline = _pipeline(1)
    found = []
    for text in configs:
        document = yaml.safe_load(text)
        document["cache_config"]["num_inference_steps"] = STEPS
        configured = cache_dit.load_configs(document)
        cache_dit.enable_cache(pipeline, **{k: v for k, v in configured.items() if v})
        with _counted_reduces() as reduces:
            pipeline(
                prompt=SPEC.prompt,
                height=SIDE,
                width=SIDE,
                max_sequence_length=pipeline.tokenizer_2.model_max_length,
                num_inference_steps=STEPS,
                generator=torch.Generator("cpu").manual_seed(SPEC.seed),
                output_type="latent",
            )
        cached = cache_dit.summary(pipeline, logging=False)[0].cached_steps
        found.append(Counted({}, tuple(reduces), STEPS - len(cached)))
        cache_dit.disable_cache(pipeline)
    return found
