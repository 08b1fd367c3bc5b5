"""Draws every row of every prompt, interleaved, each engine in a process of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from multiprocessing import get_context
from typing import NamedTuple

from tests.bench.quality.engines import Drawing, draw, prepare
from tests.bench.quality.settings import Engine, Setting

AT_ONCE = 2
"""Processes that draw at the same time, always as many, so that all rows are held up alike."""


class Row(NamedTuple):
    """A setting as an engine draws it."""

    engine: Engine
    setting: Setting


def draw_all(rows: Sequence[Row], prompts: Sequence[str]) -> Iterator[dict[Row, Drawing]]:
    """The pictures of every row, prompt by prompt; prompt ``i`` has the seed ``i``."""
    with ExitStack() as stack:
        processes = {
            engine: stack.enter_context(
                ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=prepare)
            )
            for engine in {row.engine for row in rows}
        }
        # The first run of a row pays for things that no later one does.
        _draw_prompt(processes, rows, prompts[0], seed=0)
        for seed, prompt in enumerate(prompts):
            order = random.Random(seed).sample(rows, len(rows))
            drawn = _draw_prompt(processes, order, prompt, seed)
            yield {row: drawn[row] for row in rows}


def _draw_prompt(
    processes: Mapping[Engine, ProcessPoolExecutor], rows: Iterable[Row], prompt: str, seed: int
) -> dict[Row, Drawing]:
    waiting = list(rows)
    running: dict[Engine, tuple[Row, Future[Drawing]]] = {}
    drawn: dict[Row, Drawing] = {}
    while waiting or running:
        for row in list(waiting):
            if len(running) < AT_ONCE and row.engine not in running:
                waiting.remove(row)
                process = processes[row.engine]
                running[row.engine] = (row, process.submit(draw, *row, prompt, seed))
        done, _ = wait([future for _, future in running.values()], return_when=FIRST_COMPLETED)
        for engine, (row, future) in list(running.items()):
            if future in done:
                drawn[row] = future.result()
                del running[engine]
    return drawn
