"""An executor whose ranks fail when a test says so: otherwise `python -m executor`.

A rank that begins a run takes its fault from a file and fails in the middle of the step that the
file names; one that loads its model anew, before it does. Nothing of this is in the product.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

# In the place of a step.
RELOAD = -1
FAULTS = "DITPLAN_TEST_FAULTS"


def fault_file(directory: Path, rank: int) -> Path:
    return directory / f"rank-{rank}.json"


def _fail(kind: str, fired: Path) -> None:
    import torch

    fired.write_text(json.dumps(time.time()))
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "oom":
        raise torch.OutOfMemoryError("CUDA out of memory: injected")
    else:
        raise KeyError("injected")


def _install(file: Path) -> None:
    from executor.engine import run as engine
    from executor.runtime import held, member

    run, accept, reload = engine.run, member.accept, held.Held.reload

    def faulty_run(pipeline: Any, program: Any, *args: Any, **options: Any) -> Any:
        try:
            fault = json.loads(file.read_text())
            file.unlink()
        except FileNotFoundError:
            return run(pipeline, program, *args, **options)
        forwards = 0

        def hook(*_: Any) -> None:
            nonlocal forwards
            forwards += 1
            if forwards == fault["step"] + 1:
                _fail(fault["kind"], file.with_suffix(".fired"))

        # The first block is computed in every step.
        handle = pipeline.transformer.transformer_blocks[0].register_forward_pre_hook(hook)
        try:
            return run(pipeline, program, *args, **options)
        finally:
            handle.remove()

    def faulty_accept(loaded: Any, plan_id: str, program: Any) -> Any:
        if file.is_file() and json.loads(file.read_text())["kind"] == "plan":
            file.unlink()
            del program.steps[-1]
        return accept(loaded, plan_id, program)

    def faulty_reload(*arguments: Any) -> None:
        if file.is_file() and json.loads(file.read_text())["step"] == RELOAD:
            kind = json.loads(file.read_text())["kind"]
            file.unlink()
            _fail(kind, file.with_suffix(".fired"))
        reload(*arguments)

    engine.run, member.accept = faulty_run, faulty_accept
    held.Held.reload = faulty_reload  # type: ignore[method-assign]


if __name__ == "__main__":
    from executor.__main__ import main

    rank = int(os.environ["RANK"])
    _install(fault_file(Path(os.environ[FAULTS]), rank))
    if (other := os.environ.get(f"{FAULTS}_MODEL_{rank}")) is not None:
        sys.argv[sys.argv.index("--model") + 1] = other
    main()
