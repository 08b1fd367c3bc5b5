"""Draws every row of every prompt, interleaved, each engine in a process of its own."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context

from tests.bench.headline.engines import Drawing, draw, prepare
from tests.bench.headline.settings import Engine, Row

AT_ONCE = 2
"""Processes that draw at the same time, always as many, so that all rows are held up alike."""


@contextmanager
def processes(engines: Iterable[Engine]) -> Iterator[dict[Engine, Executor]]:
    """A process of one thread for each engine, which starts at its first work."""
    with ExitStack() as stack:
        yield {
            engine: stack.enter_context(
                ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=prepare)
            )
            for engine in engines
        }


def draw_all(
    executors: Mapping[Engine, Executor], rows: Sequence[Row], prompts: Sequence[str]
) -> Iterator[dict[Row, Drawing]]:
    """The pictures of every row, prompt by prompt; prompt ``i`` has the seed ``i``."""
    for seed, prompt in enumerate(prompts):
        order = random.Random(seed).sample(rows, len(rows))
        drawn = _draw_prompt(executors, order, prompt, seed)
        yield {row: drawn[row] for row in rows}


def _draw_prompt(
    executors: Mapping[Engine, Executor], rows: Iterable[Row], prompt: str, seed: int
) -> dict[Row, Drawing]:
    waiting = list(rows)
    running: dict[Engine, tuple[Row, Future[Drawing]]] = {}
    drawn: dict[Row, Drawing] = {}
    while waiting or running:
        for row in list(waiting):
            if len(running) < AT_ONCE and row.process not in running:
                waiting.remove(row)
                drawing = executors[row.process].submit(draw, row, prompt, seed)
                running[row.process] = (row, drawing)
        done, _ = wait([future for _, future in running.values()], return_when=FIRST_COMPLETED)
        for process, (row, future) in list(running.items()):
            if future in done:
                drawn[row] = future.result()
                del running[process]
    return drawn
