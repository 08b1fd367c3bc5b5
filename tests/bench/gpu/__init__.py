"""A FLUX pipeline of full size on a GPU: steps, whole runs, the service, placements."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from planner.models.resolve import from_name
from tests.bench.engine.compare import CACHED, COMPUTED, Comparison, compare
from tests.bench.engine.models import Subject
from tests.bench.engine.whole_run import Setting, WholeRuns, whole_runs
from tests.bench.gpu.placements import PLACEMENTS, Prepare, placements
from tests.bench.gpu.scale import Scale
from tests.bench.gpu.service import service
from tests.bench.inputs import FLUX
from tests.bench.peer import ABSENT, peer
from tests.bench.report import Claim, Findings, Table

_METHOD = """\
A FLUX pipeline of FLUX.1-dev's size whose weights are noise: what a step takes does not depend on \
them, what it draws shows nothing. Steps and runs take turns in an order drawn anew in every \
round, by a clock that waits until the device is idle; ratios are of lanes within a round. \
cache.yaml has a threshold that every tested step is below. Placements each have weights of their \
own, one after the other."""


def measure(*, look: bool) -> Findings:
    """All of it; where one measurement fails, the others stay.

    Raises:
        RuntimeError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device")
    torch.set_num_threads(1)
    few = ("eager", "compiled", "float8_per_row")
    return found(
        Scale(
            "FLUX.1-dev's size",
            torch.device("cuda", 0),
            torch.bfloat16,
            from_name(FLUX),
            side=1024,
            text_tokens=512,
            channels=(128, 256, 512, 512),
            rounds=3 if look else 7,
            runs=1 if look else 2,
        ),
        peer(),
        {kind: PLACEMENTS[kind] for kind in few} if look else PLACEMENTS,
    )


def found(scale: Scale, other: str, kinds: Mapping[str, Prepare] = PLACEMENTS) -> Findings:
    """``other``: the peer's name, empty without it; ``kinds`` of placements."""
    tables: list[Table] = []
    claims: list[Claim] = []

    def on_one_transformer() -> None:
        transformer = scale.build()
        compared = steps(scale, transformer, with_peer=bool(other))
        tables.extend(compared.tables)
        whole = runs(scale, transformer, with_peer=bool(other))
        tables.append(whole.table)
        claims.extend(_claims(scale, compared, whole, other))

    def measured(what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            tables.append(Table(f"{what} of {scale.title}", ("", "failed"), ((what, why),)))
        gc.collect()

    measured("Steps and runs", on_one_transformer)
    measured("The service", lambda: tables.append(service(scale)))
    measured("Placements", lambda: tables.append(placements(scale, kinds)))
    method = _METHOD if other else f"{_METHOD} {ABSENT}"
    return Findings("On a GPU", method, tuple(tables), claims=tuple(claims))


def steps(scale: Scale, transformer: Any, *, with_peer: bool) -> Comparison:
    tokens = scale.image_tokens, scale.text_tokens
    subject = Subject(scale.title, transformer, 1, *tokens, rounds=scale.rounds)
    return compare(subject, with_peer=with_peer)


def runs(scale: Scale, transformer: Any, *, with_peer: bool) -> WholeRuns:
    config, generator = transformer.config, torch.Generator().manual_seed(0)
    prompt, pooled = (
        torch.randn(shape, generator=generator).to(scale.device, scale.dtype)
        for shape in (
            (1, scale.text_tokens, config.joint_attention_dim),
            (1, config.pooled_projection_dim),
        )
    )
    setting = Setting(
        f"{scale.title}, {scale.side} x {scale.side} pixels",
        scale.pipeline(transformer),
        scale.facts,
        prompt,
        pooled,
        scale.side,
        batch=1,
        rounds=scale.runs,
        threshold=0.99,
    )
    return whole_runs(setting, with_peer=with_peer)


def _claims(scale: Scale, compared: Comparison, whole: WholeRuns, other: str) -> Iterator[Claim]:
    of = f"of {scale.title} on a GPU"
    yield compared.claim(f"a computed step {of}, over plain diffusers'", COMPUTED, other)
    yield compared.claim(f"a cached step {of}, over a forward of its one block", CACHED, other)
    yield whole.claim(f"a run of cache.yaml {of}: of the speed-up that its plan promises", other)
