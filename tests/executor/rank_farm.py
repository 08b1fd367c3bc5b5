"""Real processes that tests make ranks of: started once, connected anew for every test.

They are forked from a server that has imported what ranks need and has never started a thread.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIMEOUT = timedelta(seconds=30)
_JOB_SECONDS = 100.0


class RankFailedError(Exception):
    """A rank raised; the message holds its traceback."""


class RankFarm:
    """Ranks by number, as many as were ever asked for."""

    def __init__(self) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(["tests.executor.rank_imports"])
        self._ranks: list[tuple[Any, Connection]] = []

    def run(self, size: int, job: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``job(world, *args)`` returns on every rank of a world of that size.

        Raises:
            RankFailedError: it raised on one of them.
        """
        while len(self._ranks) < size:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._ranks.append((process, ours))
        with tempfile.TemporaryDirectory(prefix="ranks-") as directory:
            for rank, (_, connection) in enumerate(self._ranks[:size]):
                connection.send((job, str(Path(directory) / "store"), rank, size, args))
            answers = [self._answer(connection) for _, connection in self._ranks[:size]]
        failed = [f"rank {rank}:\n{error}" for rank, (_, error) in enumerate(answers) if error]
        if failed:
            self.close()
            raise RankFailedError("\n".join(failed))
        return [result for result, _ in answers]

    def _answer(self, connection: Connection) -> tuple[Any, str]:
        try:
            if connection.poll(_JOB_SECONDS):
                answer: tuple[Any, str] = connection.recv()
                return answer
        except EOFError:
            return None, "the process ended"
        return None, f"no answer within {_JOB_SECONDS:g} s"

    def close(self) -> None:
        for process, connection in self._ranks:
            connection.close()
            process.kill()
            process.join()
        self._ranks.clear()


def _serve(connection: Connection) -> None:
    import torch

    from executor.parallel.mesh import connected

    torch.set_num_threads(1)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            job, path, rank, size, args = connection.recv()
            try:
                store = torch.distributed.FileStore(path, size)
                with connected(store, rank, size, torch.device("cpu"), TIMEOUT) as world:
                    answer = job(world, *args), ""
            except Exception:
                answer = None, traceback.format_exc()
            connection.send(answer)
    os._exit(0)
