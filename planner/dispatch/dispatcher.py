"""Hands queued work to executors and takes in what they report of it."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence

import grpc
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import executor_pb2, generation_pb2

from planner.dispatch.attempts import Requeue, after_completion, after_failure, failed
from planner.dispatch.facts import Attached, Facts, Granted, Stepped
from planner.dispatch.matching import Offer
from planner.dispatch.notices import Notices, wait
from planner.dispatch.reports import (
    InvalidReportError,
    check_completion,
    decided_program,
    new_steps,
)
from planner.dispatch.requirements import Requirements
from planner.dispatch.roster import Roster
from planner.dispatch.sessions import Session, Sessions
from planner.dispatch.settlement import ANY_WORK, Settlement, lease_log
from planner.dispatch.shutdown import Shutdown
from planner.dispatch.turns import next_work
from planner.errors import CallRefused, ErrorReason, Violation, invalid
from planner.settings import Limits, Timing
from planner.store.interface import Store
from planner.store.values import Ending, Lease, StaleLeaseError, StorageFullError

_MAX_FAILURE_TEXT = 4096


class Dispatcher:
    """Methods that take a session raise StaleLeaseError where its lease is over."""

    def __init__(
        self,
        store: Store,
        roster: Roster,
        notices: Notices,
        sessions: Sessions,
        settlement: Settlement,
        requirements: Requirements,
        shutdown: Shutdown,
        timing: Timing,
        limits: Limits,
        facts: Facts,
    ) -> None:
        self._store = store
        self._roster = roster
        self._notices = notices
        self._sessions = sessions
        self._settlement = settlement
        self._requirements = requirements
        self._shutdown = shutdown
        self._timing = timing
        self._limits = limits
        self._facts = facts
        self._reloads_from = time.monotonic() + timing.return_window

    async def acquire(
        self, executor: executor_pb2.Executor, offer: Offer, wait_seconds: float
    ) -> Lease | None:
        """The next work for an executor that offers this; None when the wait ends without."""
        held = self._store.leases_of(executor.name)
        if self._sessions.any_of(held):
            raise CallRefused(
                grpc.StatusCode.ALREADY_EXISTS,
                ErrorReason.EXECUTOR_NAME_IN_USE,
                f"an executor named {executor.name!r} is running work; names must be unique",
            )
        own = f"executor {executor.name}"
        keys = [own, *offer.keys, *([ANY_WORK] if offer.allow_reload else [])]
        # Whoever holds the placement of queued work may leave without a word.
        recheck = self._timing.connected_grace if offer.allow_reload else math.inf
        ends_at = time.monotonic() + min(wait_seconds, self._timing.max_acquire_wait)
        with self._roster.present(offer, asks_for_work=True) as call:
            for lease in held:
                # Whoever asks for work runs none: the process that held this is gone.
                self._settlement.lost(lease, "restarted")
            # An older call of the same executor must learn that it is superseded.
            self._notices.notify(own)
            with self._notices.listen(*keys) as changed:
                while not call.superseded:
                    self._shutdown.refuse_if_begun()
                    changed.clear()
                    leased = self._take(offer, executor)
                    remaining = ends_at - time.monotonic()
                    if leased is not None or remaining <= 0:
                        return leased
                    await wait(changed, min(remaining, recheck))
        return None

    def _take(self, offer: Offer, executor: executor_pb2.Executor) -> Lease | None:
        expires_at = time.time() + self._timing.attach_window
        keys = self._next_keys(offer)
        lease = self._store.take(keys, executor, expires_at) if keys else None
        if lease is None:
            return None
        reload = lease.requirement not in offer.keys
        if reload:
            self._roster.expect(offer.reloaded(self._requirements.of(lease.requirement)))
            # What it held until now may be another's to take.
            self._notices.notify(ANY_WORK)
        self._settlement.deadlines_changed()
        self._notices.notify(lease.generation)
        lease_log(lease).info("lease_granted", epoch=lease.epoch, reload=reload)
        self._facts.tell(Granted(lease, reload))
        return lease

    def _next_keys(self, offer: Offer) -> Collection[str]:
        if not offer.allow_reload or time.monotonic() < self._reloads_from:
            return offer.keys
        work = next_work(
            offer,
            [other for other in self._roster.connected() if other.executor != offer.executor],
            self._store.waiting(),
            self._requirements.of,
            patience=self._timing.reload_patience,
            held_seconds=self._roster.held_seconds(offer.executor),
        )
        return [] if work is None else [work.key]

    def held_lease(self, generation: str, epoch: int) -> Lease:
        """The current lease of a generation where it has that epoch, else ABORTED."""
        lease = self._store.lease(generation)
        if lease is None or lease.epoch != epoch:
            raise stale()
        return lease

    def offer_of(self, lease: Lease, announced: Offer) -> Offer:
        """What a connected executor counts as while it holds a lease."""
        if lease.requirement in announced.keys:
            return announced
        return announced.reloaded(self._requirements.of(lease.requirement))

    def attach(
        self, lease: Lease, generation: generation_pb2.Generation, *, reloads: bool
    ) -> Session:
        """Opens the session of a lease; an older stream of the same lease ends.

        ``reloads``: the executor loads its model anew before the first step.
        """
        self._store.extend(lease, time.time() + self._timing.lease_ttl)
        session = Session(lease, generation.plan.program, lease.steps_done, lease.cancel_reason)
        if reloads and not lease.steps_done:
            session.progressed_at += self._timing.max_reload_seconds
        self._sessions.open(session)
        lease_log(lease).info("executor_attached", epoch=lease.epoch, next_step=lease.steps_done)
        self._facts.tell(Attached(lease, generation))
        return session

    def detach(self, session: Session) -> None:
        """The stream is over. Where the work is not, its executor has a moment to come back."""
        lease = session.lease
        if not self._sessions.close(session) or session.settled or self._shutdown.begun:
            return
        try:
            self._store.extend(lease, time.time() + self._timing.broken_stream_grace)
        except StaleLeaseError:
            return
        except StorageFullError:
            self._settlement.storage_failed()
        self._settlement.deadlines_changed()
        lease_log(lease).info("executor_detached", epoch=lease.epoch, next_step=session.next_step)

    def storage_failed(self) -> None:
        """What an executor sent could not be stored, for which it is not to lose its lease."""
        self._settlement.storage_failed()

    def heartbeat(self, session: Session) -> None:
        """Keeps the lease, unless it is long since the executor got on with the run."""
        if time.monotonic() - session.progressed_at > self._timing.max_step_seconds:
            held = self.held_lease(session.lease.generation, session.lease.epoch)
            self._settlement.lost(held, "stuck")
            return
        self._store.extend(session.lease, time.time() + self._timing.lease_ttl)

    def report(self, session: Session, steps: Sequence[generation_pb2.StepOutcome]) -> None:
        """Stores the outcomes of steps; a report that belies the plan fails the run."""
        try:
            fresh = new_steps(session.program, steps, session.next_step)
        except InvalidReportError as fault:
            raise self._belied(session, str(fault)) from None
        self._store.add_steps(session.lease, fresh, time.time() + self._timing.lease_ttl)
        session.next_step += len(fresh)
        session.last_step = fresh[-1] if fresh else session.last_step
        session.progressed_at = time.monotonic()
        self._facts.tell(Stepped(session.lease, session.program, fresh))
        self._notices.notify(session.lease.generation)

    def complete(self, session: Session, completion: dispatch_pb2.Completion) -> None:
        """Publishes the record and the artifacts of a finished run."""
        lease = self.held_lease(session.lease.generation, session.lease.epoch)
        program = session.program
        try:
            check_completion(program, completion, session.next_step)
        except InvalidReportError as fault:
            raise self._belied(session, str(fault)) from None
        steps = self._store.outcomes(lease)
        record = generation_pb2.Record(
            plan_id=lease.plan_id,
            program=decided_program(program, steps),
            steps=steps,
            denoise_seconds=completion.denoise_seconds,
            total_seconds=completion.total_seconds,
            cache_bytes=completion.cache_bytes,
            exchanges=completion.exchanges,
            reload_seconds=completion.reload_seconds,
        )
        self._settle(session, after_completion(lease, record))

    def fail(self, session: Session, failure: dispatch_pb2.RunFailure) -> None:
        """The executor could not finish the run."""
        lease = self.held_lease(session.lease.generation, session.lease.epoch)
        self._settle(
            session,
            after_failure(
                lease,
                failure.code,
                failure.message[:_MAX_FAILURE_TEXT],
                retryable=failure.retryable,
                handed_back=failure.handed_back,
                max_attempts=self._limits.attempts,
            ),
        )

    def _belied(self, session: Session, text: str) -> CallRefused:
        message = f"executor {session.lease.executor.name} did not follow the plan: {text}"
        ending = failed(grpc.StatusCode.INTERNAL.name, message, session.next_step)
        self._settle(session, ending)
        return invalid([Violation("", text)], ErrorReason.INVALID_REPORT)

    def _settle(self, session: Session, outcome: Requeue | Ending) -> None:
        self._settlement.conclude(session.lease, outcome)
        session.settled = True
        session.changed.set()


def stale() -> CallRefused:
    return CallRefused(
        grpc.StatusCode.ABORTED, ErrorReason.STALE_LEASE, "the lease is over; give the run up"
    )
