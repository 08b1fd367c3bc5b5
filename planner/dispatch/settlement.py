"""What becomes of work: queued again, or ended for good. Nothing accepted stays undecided."""

from __future__ import annotations

import asyncio
import time

import structlog

from planner.dispatch.attempts import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    Requeue,
    after_loss,
    ended,
    failed,
)
from planner.dispatch.differences import could_reload
from planner.dispatch.facts import Ended, Facts, Lost, Requeued
from planner.dispatch.notices import Notices, wait
from planner.dispatch.requirements import Requirements
from planner.dispatch.roster import Roster
from planner.dispatch.sessions import Sessions
from planner.settings import Limits, Timing
from planner.store.artifacts import ArtifactFiles
from planner.store.interface import Store
from planner.store.values import Ending, Lease, State, StorageFullError

_STORE_FAILURE_PAUSE = 1.0
# How soon it is noticed that the clock was set, and by how much it must have been.
_CLOCK_LOOK_SECONDS = 5.0
_CLOCK_JUMP_SECONDS = 1.0
ANY_WORK = "any work"
"""What executors listen to that may load their model anew for work of another key."""

log = structlog.get_logger(__name__)


class Settlement:
    def __init__(
        self,
        store: Store,
        files: ArtifactFiles,
        roster: Roster,
        notices: Notices,
        sessions: Sessions,
        requirements: Requirements,
        timing: Timing,
        limits: Limits,
        facts: Facts,
    ) -> None:
        self._store = store
        self._files = files
        self._roster = roster
        self._notices = notices
        self._sessions = sessions
        self._requirements = requirements
        self._timing = timing
        self._limits = limits
        self._facts = facts
        self._deadlines_changed = asyncio.Event()
        self._given_up: dict[str, tuple[str, str]] = {}
        self._stalled = False
        self._clock_offset = _clock_offset()

    def adopt_leases(self) -> None:
        """Gives the executors of an earlier planner their time to attach to this one."""
        self._stalled = True

    async def keep(self) -> None:
        """Acts on leases that expire and on work that waited too long, until cancelled."""
        while True:
            self._deadlines_changed.clear()
            if self._clock_jumped():
                # Leases end by the clock: their holders get their time anew.
                log.warning("clock_jumped")
                self._stalled = True
            try:
                if self._stalled:
                    self._store.extend_all(time.time() + self._timing.restart_window)
                    self._stalled = False
                self._act_on_deadlines()
                deadline = self._store.next_deadline()
            except Exception as error:
                # Whatever is due stays due.
                if isinstance(error, StorageFullError):
                    log.warning("storage_full", error=str(error))
                    self._stalled = True
                else:
                    log.exception("deadlines_failed")
                await asyncio.sleep(_STORE_FAILURE_PAUSE)
                continue
            pause = None
            if deadline is not None:
                pause = min(max(deadline - time.time(), 0.0), _CLOCK_LOOK_SECONDS)
            await wait(self._deadlines_changed, pause)

    def _clock_jumped(self) -> bool:
        """Whether it was set since the last look."""
        before, self._clock_offset = self._clock_offset, _clock_offset()
        return abs(self._clock_offset - before) > _CLOCK_JUMP_SECONDS

    def deadlines_changed(self) -> None:
        """Something may now be due sooner than it was."""
        self._deadlines_changed.set()

    def storage_failed(self) -> None:
        """Leases could not be kept, through no fault of their holders, who get their time again."""
        self._stalled = True
        self.deadlines_changed()

    def work_arrived(self, requirement: str) -> None:
        """Wakes the executors that could take it."""
        self.deadlines_changed()
        self._notices.notify(requirement)
        self._notices.notify(ANY_WORK)

    def conclude(self, lease: Lease, outcome: Requeue | Ending) -> None:
        """Ends a lease. StaleLeaseError where it is over already."""
        if isinstance(outcome, Requeue):
            queue_deadline = time.time() + self._timing.max_queue_seconds
            self._store.requeue(
                lease, outcome.reason, queue_deadline, handed_back=outcome.handed_back
            )
            self._files.discard_others(lease.generation, None, ())
            self.work_arrived(lease.requirement)
            lease_log(lease).info("generation_requeued", reason=outcome.reason)
            self._facts.tell(Requeued(lease, outcome.reason))
        else:
            self._store.end_leased(lease, outcome)
            self._tidy(lease)
            self._log_end(lease_log(lease), outcome)
            self._facts.tell(Ended(lease.generation, outcome, lease))
        self._notices.notify(lease.generation)

    def lost(self, lease: Lease, cause: str) -> None:
        """The executor of a lease is gone without a word; ``cause`` as in `facts.Lost`."""
        name = lease.executor.name
        needed = self._requirements.of(lease.requirement)
        another = any(
            (lease.requirement in offer.keys or could_reload(needed, offer))
            and (offer.executor != name or self._roster.is_asking(name))
            for offer in self._roster.connected()
        )
        lease_log(lease).warning(
            "lease_lost", epoch=lease.epoch, step=lease.steps_done, cause=cause
        )
        self._facts.tell(Lost(lease, cause))
        attempts = self._limits.attempts
        self.conclude(lease, after_loss(lease, max_attempts=attempts, another_executor=another))
        self._sessions.fence(lease.generation)

    def cancel(self, generation: str, reason: str) -> None:
        """Ends queued work now and running work within a step; ended work stays as it is."""
        self._stop(generation, CANCELLED, reason)

    def give_up(self, generation: str, reason: str, *, expired: bool) -> None:
        """As `cancel`, or as a deadline that has passed, once the store can write."""
        code = DEADLINE_EXCEEDED if expired else CANCELLED
        self._given_up.setdefault(generation, (code, reason))
        self.deadlines_changed()

    def _stop(self, generation: str, code: str, reason: str) -> None:
        if self._end_queued(generation, ended(code, reason)):
            return
        expires_at = time.time() + self._timing.cancel_window
        if self._store.request_stop(generation, code, reason, expires_at):
            log.info("stop_requested", generation=generation, code=code)
            self.deadlines_changed()
            self._sessions.cancel(generation, reason)

    def _act_on_deadlines(self) -> None:
        for generation, (code, reason) in list(self._given_up.items()):
            self._stop(generation, code, reason)
            del self._given_up[generation]
        for generation in self._store.expired(time.time()):
            self._stop(generation, DEADLINE_EXCEEDED, "the deadline of the request has passed")
        for lease in self._store.expired_leases(time.time()):
            self.lost(lease, "expired")
        waited = f"no executor took the work within {self._timing.max_queue_seconds:g} s"
        for generation in self._store.overdue(time.time()):
            self._end_queued(generation, failed(DEADLINE_EXCEEDED, waited))

    def _end_queued(self, generation: str, ending: Ending) -> bool:
        if not self._store.end_queued(generation, ending):
            return False
        self._notices.notify(generation)
        self._log_end(log.bind(generation=generation), ending)
        self._facts.tell(Ended(generation, ending, None))
        return True

    def _tidy(self, lease: Lease) -> None:
        ended = self._store.generation(lease.generation)
        published = [artifact.name for artifact in ended.artifacts] if ended else []
        self._files.discard_others(lease.generation, lease.epoch, published)

    def _log_end(self, bound: structlog.typing.FilteringBoundLogger, ending: Ending) -> None:
        if ending.state is State.FAILED and ending.failure is not None:
            failure = ending.failure
            bound.warning("generation_failed", code=failure.code, message=failure.message)
        else:
            bound.info(f"generation_{ending.state.name.lower()}")


def _clock_offset() -> float:
    return time.time() - time.monotonic()


def lease_log(lease: Lease) -> structlog.typing.FilteringBoundLogger:
    bound: structlog.typing.FilteringBoundLogger = log.bind(
        generation=lease.generation, plan_id=lease.plan_id, executor=lease.executor.name
    )
    return bound
