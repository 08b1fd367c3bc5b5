"""What the agent asks of an executor's ranks, be it one or several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ditplan.identity import plan_id
from ditplan.v1 import generation_pb2, plan_pb2

from executor import codec
from executor.codec_placement import requirements_from_proto
from executor.engine import run as engine
from executor.engine.program import Program, StepOutcome
from executor.placement.load import LoadedPipeline
from executor.placement.placement import Placement
from executor.placement.requirements import differences, lasting_differences
from executor.runtime.failures import DamagedPlanError, RefusedRunError


class Ranks(Protocol):
    """The ranks that hold one placement and run one program at a time."""

    @property
    def loaded(self) -> LoadedPipeline: ...

    def run(
        self,
        plan_id: str,
        program: plan_pb2.Program,
        spec: generation_pb2.GenerationSpec,
        *,
        on_step: Callable[[StepOutcome], None],
        is_cancelled: Callable[[], bool],
    ) -> engine.RunResult:
        """Runs a program on all ranks, if it is the one that its id names and they can.

        Raises:
            RunCancelled: ``is_cancelled`` said so, and every rank has stopped.
            Exception: whatever the run failed of; `executor.runtime.failures.describe` tells.
        """

    def check(self, placement: Placement) -> None:
        """Raises PlacementError where the ranks could not hold it, before anything is loaded."""

    def reload(self, placement: Placement) -> None:
        """Loads the model anew on all ranks, to hold this placement.

        Raises:
            Exception: loading failed; then `recover` raises.
        """

    def recover(self) -> None:
        """Makes ready for the next run after one that failed.

        Raises:
            ExecutorFailedError: only new processes can run anything.
        """


def needs_reload(
    loaded: LoadedPipeline, wanted_id: str, message: plan_pb2.Program
) -> Placement | None:
    """The placement of a program that these ranks could run if only they held it.

    Raises:
        DamagedPlanError, UnreadableMessageError, ProgramMismatchError: as `accept`.
    """
    wanted = requirements_from_proto(message)
    if wanted.placement == loaded.placement or lasting_differences(loaded, wanted):
        return None
    engine.check(loaded.pipeline, _program(wanted_id, message))
    return wanted.placement


def accept(loaded: LoadedPipeline, wanted_id: str, message: plan_pb2.Program) -> Program:
    """The program, if it is the one that was planned and this pipeline can run it.

    Raises:
        DamagedPlanError: its id is another one.
        UnreadableMessageError: it holds something unknown here.
        RefusedRunError: it is for another executor.
        ProgramMismatchError: it does not fit the pipeline.
    """
    program = _program(wanted_id, message)
    found = differences(loaded, requirements_from_proto(message))
    if found:
        raise RefusedRunError("; ".join(found))
    engine.check(loaded.pipeline, program)
    return program


def _program(wanted_id: str, message: plan_pb2.Program) -> Program:
    computed = plan_id(message)
    if computed != wanted_id:
        raise DamagedPlanError(f"the program has id {computed}, not {wanted_id}")
    return codec.program_from_proto(message)
