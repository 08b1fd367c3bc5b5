"""Rank 1 and above: hold the model and do what rank 0 says, until it goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from ditplan.runtime.v1.runtime_pb2 import Command, Report
from structlog.typing import FilteringBoundLogger

from executor.errors import PlacementError
from executor.placement.load import LoadedPipeline
from executor.placement.placement import Placement
from executor.runtime.held import Held
from executor.runtime.holding import holding
from executor.runtime.line import Line, LineEnd
from executor.runtime.meeting import join, open_store
from executor.runtime.member import Member
from executor.runtime.seat import FAILED, MISUSE, Seat
from executor.runtime.signals import Signals


def follow(
    seat: Seat,
    load: Callable[[Placement], LoadedPipeline],
    placement: Placement,
    *,
    rank_timeout: float,
    log: FilteringBoundLogger,
) -> NoReturn:
    """Ends the process with rank 0.

    Raises:
        ExecutorFailedError: rank 0 cannot be reached.
    """
    store = open_store(seat)
    member: Member | None = None

    def receive(message: bytes) -> None:
        command = Command.FromString(message)
        if command.HasField("leave"):
            os._exit(0)
        assert member is not None, "rank 0 waits for the model"
        member.take(command)

    def lost(end: LineEnd) -> None:
        log.warning("rank_lost", reason=f"rank 0 {end.value}")
        if end is LineEnd.SILENT:
            leader.kill()
        os._exit(FAILED)

    connection, leader = join(store, seat)
    line = Line(connection, timeout=rank_timeout, receive=receive, lost=lost)
    # Rank 0 decides when the ranks end. On another host it has not got the signal, too.
    ending = Report(ending=True).SerializeToString()
    Signals(lambda number: line.send(ending)).__enter__()
    line.start()
    try:
        held = Held(load, placement)
    except PlacementError as error:
        report = Report()
        report.failure.code, report.failure.message = "FAILED_PRECONDITION", str(error)
        line.send(report.SerializeToString())
        line.close()
        os._exit(MISUSE)
    member = Member(
        held,
        seat,
        store,
        answer=lambda report: line.send(report.SerializeToString()),
        log=log,
    )
    line.send(Report(holding=holding(held.loaded, held.digest)).SerializeToString())
    member.serve()
    raise AssertionError("a member serves without end")
