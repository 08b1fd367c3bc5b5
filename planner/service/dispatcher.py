"""Hands queued work to executors and settles what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import structlog
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2

from planner.service.attempts import QueueAgain, after_failure, after_loss, cancelled, failed
from planner.service.errors import CallRefused, ErrorReason, Violation, invalid
from planner.service.matching import Offer
from planner.service.notices import Notices, wait
from planner.service.reports import InvalidReportError, decided_program, new_steps
from planner.service.roster import Roster
from planner.service.settings import Limits, Timing
from planner.store.artifacts import ArtifactFiles
from planner.store.interface import Store
from planner.store.values import Ending, Lease, StaleLeaseError, State

_MAX_FAILURE_TEXT = 4096

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Session:
    """One attached executor. Whoever changes it sets ``changed``; its stream looks then."""

    lease: Lease
    program: plan_pb2.Program
    next_step: int
    cancel_reason: str | None = None
    settled: bool = False
    fenced: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Dispatcher:
    def __init__(
        self,
        store: Store,
        files: ArtifactFiles,
        roster: Roster,
        notices: Notices,
        timing: Timing,
        limits: Limits,
    ) -> None:
        self._store = store
        self._files = files
        self._roster = roster
        self._notices = notices
        self._timing = timing
        self._limits = limits
        self._sessions: dict[str, Session] = {}
        self._deadlines_changed = asyncio.Event()
        self.stopping = False

    async def keep_deadlines(self) -> None:
        """Acts on leases that expire and on work that waited too long, until cancelled."""
        self._store.extend_all(time.time() + self._timing.attach_window)
        while True:
            self._deadlines_changed.clear()
            try:
                self._act_on_deadlines()
                deadline = self._store.next_deadline()
            except Exception:
                # The store may be out of disk for a while; whatever is due stays due.
                log.exception("deadlines_failed")
                deadline = time.time() + 1.0
            pause = None if deadline is None else max(deadline - time.time(), 0.0)
            await wait(self._deadlines_changed, pause)

    def stop(self) -> None:
        """Lets every open call end; running work goes on and finds the next planner."""
        self.stopping = True
        for session in self._sessions.values():
            session.changed.set()
        self._notices.notify_all()

    def work_arrived(self, requirement: str) -> None:
        self._deadlines_changed.set()
        self._notices.notify(requirement)

    async def acquire(
        self, executor: executor_pb2.Executor, offer: Offer, wait_seconds: float
    ) -> Lease | None:
        """The oldest queued work that matches the offer; None when the wait ends without."""
        held = self._store.leases_of(executor.name)
        if any(lease.generation in self._sessions for lease in held):
            raise CallRefused(
                grpc.StatusCode.ALREADY_EXISTS,
                ErrorReason.EXECUTOR_NAME_IN_USE,
                f"an executor named {executor.name!r} is running work; names must be unique",
            )
        key = offer.offered.key
        ends_at = time.monotonic() + min(wait_seconds, self._timing.max_acquire_wait)
        with self._roster.present(offer, asks_for_work=True) as call:
            for lease in held:
                # Whoever asks for work runs none: the process that held this is gone.
                self._lost(lease)
            self._notices.notify(key)
            with self._notices.listen(key) as changed:
                while not call.superseded:
                    self.refuse_when_stopping()
                    changed.clear()
                    expires_at = time.time() + self._timing.attach_window
                    leased = self._store.take(key, executor, expires_at)
                    if leased is not None:
                        self._deadlines_changed.set()
                        self._notices.notify(leased.generation)
                        _facts(leased).info("lease_granted", epoch=leased.epoch)
                        return leased
                    remaining = ends_at - time.monotonic()
                    if remaining <= 0:
                        break
                    await wait(changed, remaining)
        return None

    def refuse_when_stopping(self) -> None:
        if self.stopping:
            raise CallRefused(
                grpc.StatusCode.UNAVAILABLE,
                ErrorReason.STOPPING,
                "the planner is stopping; connect again",
                retry_seconds=1.0,
            )

    def held_lease(self, claimed: dispatch_pb2.Lease, generation: str) -> Lease:
        """The current lease where that is the claimed one, else ABORTED."""
        lease = self._store.lease(generation)
        if lease is None or lease.epoch != claimed.epoch:
            raise stale()
        return lease

    def attach(self, lease: Lease) -> Session:
        """Opens the session of a lease; an older stream of the same lease ends."""
        found = self._store.generation(lease.generation)
        if found is None:
            raise stale()
        self._store.extend(lease, time.time() + self._timing.lease_ttl)
        self._end_session(lease.generation)
        session = Session(lease, found.plan.program, lease.steps_done, lease.cancel_reason)
        session.changed.set()
        self._sessions[lease.generation] = session
        _facts(lease).info("executor_attached", epoch=lease.epoch, next_step=lease.steps_done)
        return session

    def detach(self, session: Session) -> None:
        """The stream is over. Where the work is not, its executor has a moment to come back."""
        lease = session.lease
        if self._sessions.get(lease.generation) is not session:
            return
        del self._sessions[lease.generation]
        if session.settled or self.stopping:
            return
        try:
            self._store.extend(lease, time.time() + self._timing.broken_stream_grace)
        except StaleLeaseError:
            return
        self._deadlines_changed.set()
        _facts(lease).info("executor_detached", epoch=lease.epoch, next_step=session.next_step)

    def heartbeat(self, session: Session) -> None:
        self._store.extend(session.lease, time.time() + self._timing.lease_ttl)

    def report(self, session: Session, steps: Sequence[generation_pb2.StepOutcome]) -> None:
        """Stores the outcomes of steps; a report that belies the plan fails the run."""
        try:
            fresh = new_steps(session.program, steps, session.next_step)
        except InvalidReportError as fault:
            raise self._belied(session, str(fault)) from None
        self._store.add_steps(session.lease, fresh, time.time() + self._timing.lease_ttl)
        session.next_step += len(fresh)
        self._notices.notify(session.lease.generation)

    def complete(self, session: Session, completion: dispatch_pb2.Completion) -> None:
        """Publishes the record and the artifacts of a finished run."""
        lease, program = session.lease, session.program
        count = len(program.steps)
        if session.next_step != count:
            text = f"completion after {session.next_step} of {count} steps"
            raise self._belied(session, text)
        steps = self._store.outcomes(lease)
        record = generation_pb2.Record(
            plan_id=lease.plan_id,
            program=decided_program(program, steps),
            steps=steps,
            denoise_seconds=completion.denoise_seconds,
            total_seconds=completion.total_seconds,
        )
        self._settle(session, Ending(State.SUCCEEDED, record=record))

    def fail(self, session: Session, failure: dispatch_pb2.RunFailure) -> None:
        """The executor could not finish the run."""
        lease = self._store.lease(session.lease.generation)
        if lease is None or lease.epoch != session.lease.epoch:
            raise StaleLeaseError(session.lease.generation)
        self._settle(
            session,
            after_failure(
                lease,
                failure.code,
                failure.message[:_MAX_FAILURE_TEXT],
                retryable=failure.retryable,
                max_attempts=self._limits.attempts,
            ),
        )

    def cancel(self, generation: str, reason: str) -> None:
        """Ends queued work now and running work within a step; ended work stays as it is."""
        if self._store.end_queued(generation, cancelled(reason)):
            self._notices.notify(generation)
            log.info("generation_ended", generation=generation, state=State.CANCELLED.name)
            return
        expires_at = time.time() + self._timing.cancel_window
        if self._store.request_cancel(generation, reason, expires_at):
            log.info("cancel_requested", generation=generation)
            self._deadlines_changed.set()
            session = self._sessions.get(generation)
            if session is not None:
                session.cancel_reason = session.cancel_reason or reason
                session.changed.set()

    def _act_on_deadlines(self) -> None:
        for lease in self._store.expired_leases(time.time()):
            self._lost(lease)
        for generation in self._store.overdue(time.time()):
            waited = f"no executor took the work within {self._timing.max_queue_seconds:g} s"
            ending = failed(grpc.StatusCode.DEADLINE_EXCEEDED.name, waited)
            if self._store.end_queued(generation, ending):
                self._notices.notify(generation)
                log.info("generation_ended", generation=generation, state=ending.state.name)

    def _lost(self, lease: Lease) -> None:
        name = lease.executor.name
        another = any(
            offer.offered.key == lease.requirement
            and (offer.executor != name or self._roster.is_asking(name))
            for offer in self._roster.connected()
        )
        _facts(lease).warning("lease_lost", epoch=lease.epoch, step=lease.steps_done)
        self._conclude(
            lease,
            after_loss(lease, max_attempts=self._limits.attempts, another_executor=another),
        )
        self._end_session(lease.generation)

    def _settle(self, session: Session, outcome: QueueAgain | Ending) -> None:
        self._conclude(session.lease, outcome)
        session.settled = True
        session.changed.set()

    def _conclude(self, lease: Lease, outcome: QueueAgain | Ending) -> None:
        if isinstance(outcome, QueueAgain):
            queue_deadline = time.time() + self._timing.max_queue_seconds
            self._store.requeue(lease, outcome.reason, queue_deadline)
            self._files.discard_others(lease.generation, None, ())
            self.work_arrived(lease.requirement)
            _facts(lease).info("generation_queued_again", reason=outcome.reason)
        else:
            self._store.end_leased(lease, outcome)
            self._tidy(lease)
            code = outcome.failure.code if outcome.failure else None
            _facts(lease).info("generation_ended", state=outcome.state.name, code=code)
        self._notices.notify(lease.generation)

    def _tidy(self, lease: Lease) -> None:
        ended = self._store.generation(lease.generation)
        published = [artifact.name for artifact in ended.artifacts] if ended else []
        self._files.discard_others(lease.generation, lease.epoch, published)

    def _belied(self, session: Session, text: str) -> CallRefused:
        message = f"executor {session.lease.executor.name} did not follow the plan: {text}"
        ending = failed(grpc.StatusCode.INTERNAL.name, message, session.next_step)
        self._settle(session, ending)
        return invalid([Violation("", text)], ErrorReason.INVALID_REPORT)

    def _end_session(self, generation: str) -> None:
        session = self._sessions.pop(generation, None)
        if session is not None:
            session.fenced = True
            session.changed.set()


def stale() -> CallRefused:
    return CallRefused(
        grpc.StatusCode.ABORTED, ErrorReason.STALE_LEASE, "the lease is over; give the run up"
    )


def _facts(lease: Lease) -> structlog.typing.FilteringBoundLogger:
    bound: structlog.typing.FilteringBoundLogger = log.bind(
        generation=lease.generation, plan_id=lease.plan_id, executor=lease.executor.name
    )
    return bound
