"""The executors that are attached to a lease right now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from ditplan.v1 import generation_pb2, plan_pb2

from planner.store.values import Lease


@dataclass(eq=False, slots=True)
class Session:
    """One open stream of a lease. Whoever changes it sets ``changed``; its stream looks then.

    ``settled``: the outcome is stored. ``fenced``: the lease went away, or to a newer stream.
    ``progressed_at``: the last step or the attachment, by the monotonic clock; until the first step
    later than that by the time that loading a model anew may take. ``last_step``: of this stream.
    """

    lease: Lease
    program: plan_pb2.Program
    next_step: int
    cancel_reason: str | None = None
    settled: bool = False
    fenced: bool = False
    last_step: generation_pb2.StepOutcome | None = None
    progressed_at: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Sessions:
    """At most one session per generation."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}

    def open(self, session: Session) -> None:
        self.fence(session.lease.generation)
        self._open[session.lease.generation] = session
        session.changed.set()

    def close(self, session: Session) -> bool:
        """False where another session had taken its place."""
        if self._open.get(session.lease.generation) is not session:
            return False
        del self._open[session.lease.generation]
        return True

    def fence(self, generation: str) -> None:
        session = self._open.pop(generation, None)
        if session is not None:
            session.fenced = True
            session.changed.set()

    def cancel(self, generation: str, reason: str) -> None:
        session = self._open.get(generation)
        if session is not None:
            session.cancel_reason = session.cancel_reason or reason
            session.changed.set()

    def any_of(self, leases: Iterable[Lease]) -> bool:
        return any(lease.generation in self._open for lease in leases)

    def last_step(self, generation: str) -> generation_pb2.StepOutcome | None:
        """The last one that the open session of a generation was told of."""
        session = self._open.get(generation)
        return None if session is None else session.last_step

    def wake_all(self) -> None:
        for session in self._open.values():
            session.changed.set()
