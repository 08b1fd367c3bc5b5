"""Rank 0: has all ranks do the same, and finds out when one does not."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Self

from ditplan.runtime.v1 import runtime_pb2
from ditplan.runtime.v1.runtime_pb2 import Command, Report
from ditplan.v1 import generation_pb2, plan_pb2
from structlog.typing import FilteringBoundLogger
from torch._C._distributed_c10d import Store

from executor.codec_placement import reload_to_proto
from executor.engine import run as engine
from executor.engine.program import StepOutcome
from executor.errors import PlacementError
from executor.placement.load import LoadedPipeline
from executor.placement.placement import Placement
from executor.runtime.answers import Answers, failures, fault_of, silent
from executor.runtime.failures import ExecutorFailedError, RunFailedError
from executor.runtime.held import Held
from executor.runtime.holding import differences, holding
from executor.runtime.line import Line, LineEnd
from executor.runtime.meeting import Process, await_joins, open_store
from executor.runtime.member import Member
from executor.runtime.ranks import accept
from executor.runtime.seat import Seat

# The ranks load the same files; the slowest may be on another host.
LOAD_SECONDS = 3600.0
# For all ranks to leave a broken group and to meet in a new one. More, and a restart is faster.
CONNECT_SECONDS = 30.0
# Errors of ranks that lost another one may come before the news of what happened to it.
CAUSE_SECONDS = 1.0


class Leader:
    """`Ranks` of several. Every rank, this one too, has a `Member`; this one's has a thread.

    While ranks wait for each other in a collective, the thread that called `run` waits for their
    reports, and for lines that are lost.
    """

    def __init__(
        self,
        seat: Seat,
        *,
        rank_timeout: float,
        on_failed: Callable[[], None],
        on_ending: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        """Waits for the other ranks. ``on_failed`` is called once one of them is lost,
        ``on_ending`` when the process of one was told to end.

        Raises:
            ExecutorFailedError: one did not come.
        """
        self._seat = seat
        self._rank_timeout = rank_timeout
        self._on_failed = on_failed
        self._on_ending = on_ending
        self._log = log
        self._answers = Answers(seat.size)
        self._connected = False
        self._member: Member | None = None
        self._held: Held | None = None
        self._is_cancelled: Callable[[], bool] = lambda: False
        self._tell: Callable[[StepOutcome], None] = lambda outcome: None
        self._stopping = False
        self._store: Store = open_store(seat)
        self._lines: Mapping[int, Line] = {
            rank: self._line(rank, connection, process)
            for rank, (connection, process) in await_joins(self._store, seat).items()
        }
        for line in self._lines.values():
            line.start()

    @property
    def loaded(self) -> LoadedPipeline:
        assert self._held is not None, "no model was given"
        return self._held.loaded

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Has every other rank end its process."""
        for line in self._lines.values():
            line.send(Command(leave=runtime_pb2.Leave()).SerializeToString())
            line.close()

    def lead(self, held: Held) -> None:
        """Returns once every rank holds the same and all are connected.

        Raises:
            PlacementError: a rank could not load the model, or loaded another.
            ExecutorFailedError: a rank was lost.
        """
        self._held = held
        self._answers.take(0, Report(holding=holding(held.loaded, held.digest)))
        answers = self._loaded_all()
        for rank, report in sorted(answers.items()):
            if report.HasField("failure"):
                raise PlacementError(f"rank {rank}: {report.failure.message}")
        self._compare(answers)
        self._member = Member(
            held,
            self._seat,
            self._store,
            answer=lambda report: self._answers.take(0, report),
            log=self._log,
            on_step=lambda outcome: self._tell(outcome),
            on_check=self._check,
        )
        threading.Thread(target=self._member.serve, name="rank", daemon=True).start()
        self.recover()

    def run(
        self,
        plan_id: str,
        program: plan_pb2.Program,
        spec: generation_pb2.GenerationSpec,
        *,
        on_step: Callable[[StepOutcome], None],
        is_cancelled: Callable[[], bool],
    ) -> engine.RunResult:
        # What no rank could run fails without a rank's name.
        accept(self.loaded, plan_id, program)
        assert self._member is not None
        prepare = runtime_pb2.Prepare(plan_id=plan_id, program=program, spec=spec)
        self._tell, self._is_cancelled, self._stopping = on_step, is_cancelled, False
        try:
            self._ask(Command(prepare=prepare), self._rank_timeout)
            self._ask(Command(run=runtime_pb2.Run()))
        except RunFailedError:
            self._connected = False
            self._tell = lambda outcome: None
            self._send(Command(abort=runtime_pb2.Abort()))
            raise
        if self._member.result is None:
            raise engine.RunCancelled
        return self._member.result

    def check(self, placement: Placement) -> None:
        assert self._held is not None
        self._held.check(placement)

    def reload(self, placement: Placement) -> None:
        self._connected = False
        try:
            self._compare(self._ask(Command(reload=reload_to_proto(placement)), LOAD_SECONDS))
        except (RunFailedError, PlacementError) as error:
            self._lose(0, f"the model could not be loaded anew: {error}")
            raise
        self.recover()

    def _compare(self, answers: Mapping[int, Report]) -> None:
        """Raises PlacementError where a rank holds another model or placement than this one."""
        mine, found = answers[0].holding, []
        for rank, report in sorted(answers.items()):
            found += differences(rank, report.holding, mine)
        if found:
            raise PlacementError("; ".join(found))

    def recover(self) -> None:
        if not self._connected and not self._answers.lost:
            place = secrets.token_hex(8)
            try:
                self._ask(Command(connect=runtime_pb2.Connect(place=place)), CONNECT_SECONDS)
                self._connected = True
            except RunFailedError as error:
                self._lose(0, f"the ranks could not be connected again: {error}")
        if self._answers.lost:
            raise ExecutorFailedError(self._answers.lost)

    def _line(self, rank: int, connection: Connection, process: Process) -> Line:
        def lost(end: LineEnd) -> None:
            if end is LineEnd.SILENT:
                process.kill()
            self._lose(rank, f"rank {rank} {end.value}")

        def receive(message: bytes) -> None:
            report = Report.FromString(message)
            if report.ending:
                self._on_ending()
            else:
                self._answers.take(rank, report)

        return Line(connection, timeout=self._rank_timeout, receive=receive, lost=lost)

    def _lose(self, rank: int, why: str) -> None:
        self._log.error("rank_lost", reason=why)
        self._answers.lose(rank, why)
        self._on_failed()

    def _send(self, command: Command) -> int:
        command.number = self._answers.expect()
        message = command.SerializeToString()
        for line in self._lines.values():
            line.send(message)
        assert self._member is not None
        self._member.take(command)
        return command.number

    def _ask(self, command: Command, seconds: float | None = None) -> dict[int, Report]:
        """What the ranks answer, once all of them have done it.

        Raises:
            RunFailedError: one of them has not; the failure is the first cause that is known.
        """
        number = self._send(command)
        answers = self._answers.of(number, seconds, cause_seconds=CAUSE_SECONDS)
        fault = fault_of(answers, self._seat.size, self._answers.lost)
        if fault is None:
            return answers
        if fault.loses:
            self._lose(fault.rank, fault.loses)
        raise RunFailedError(fault.failure)

    def _loaded_all(self) -> dict[int, Report]:
        """What the ranks hold, or the failure of one.

        Raises:
            ExecutorFailedError: a rank was lost, or did not answer in time.
        """
        answers = self._answers.of(0, LOAD_SECONDS)
        missing = silent(answers, self._seat.size)
        if missing and not failures(answers):
            why = self._answers.lost or f"rank {missing[0]} has not loaded the model in time"
            raise ExecutorFailedError(why)
        return answers

    def _check(self, step: int) -> None:
        """Before a step of this rank's run, in its thread: has all ranks stop at one place.

        No rank is further than the step after ``step``'s predecessor as long as this one is here:
        they share every step. A CUDA device computes while its host is one step ahead.
        """
        if self._stopping or not self._is_cancelled():
            return
        self._stopping = True
        ahead = 2 if self.loaded.device.type == "cuda" else 1
        self._answers.of(self._send(Command(stop=runtime_pb2.Stop(before_step=step + ahead))))
