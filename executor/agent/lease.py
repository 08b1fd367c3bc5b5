"""One leased run as the planner sees it: the stream, its loss, its end."""

from __future__ import annotations

import threading
from typing import Self

import grpc
from ditplan.dispatch.v1.dispatch_pb2 import Attach, Lease, RunLeaseRequest, RunLeaseResponse
from ditplan.dispatch.v1.dispatch_pb2_grpc import DispatchServiceStub
from ditplan.v1.generation_pb2 import StepOutcome
from structlog.typing import FilteringBoundLogger

from executor.agent.backoff import Backoff
from executor.agent.outbox import Outbox
from executor.agent.status import TRANSIENT, Status
from executor.agent.telemetry.facts import Facts, PlannerSeen

FIRST_RETRY_SECONDS = 0.05
MOST_RETRY_SECONDS = 1.0
JOIN_SECONDS = 5.0


class LeasedRun:
    """Keeps the stream of one lease up in a thread of its own while the run goes on.

    A stream that breaks is opened again and resumed for as long as the object is open; what was
    reported meanwhile is sent then.
    """

    def __init__(
        self,
        stub: DispatchServiceStub,
        lease: Lease,
        executor: str,
        log: FilteringBoundLogger,
        facts: Facts,
    ) -> None:
        self.lease = lease
        self.stub = stub
        self._executor = executor
        self._log = log
        self._facts = facts
        self._outbox = Outbox()
        self._backoff = Backoff(first=FIRST_RETRY_SECONDS, most=MOST_RETRY_SECONDS)
        self._changed = threading.Condition()
        self._cancel_reason: str | None = None
        self._lost = False
        self._done = False
        self._closing = False
        self._connected = True
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._keep_attached, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of the lease, whatever has or has not been delivered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            call = self._call
        if call is not None:
            call.cancel()
        self._thread.join(JOIN_SECONDS)

    @property
    def cancel_reason(self) -> str | None:
        """Set once the planner asked to cancel the run."""
        return self._cancel_reason

    @property
    def lost(self) -> bool:
        """Whether the lease is someone else's or nobody's; nothing more can be told about it."""
        return self._lost

    @property
    def stopped(self) -> bool:
        """Whether the run should end now. Takes no lock: it is asked before every forward."""
        return self._lost or self._cancel_reason is not None

    def report(self, outcome: StepOutcome) -> None:
        """Queues what a step did; never waits for the network."""
        self._outbox.add(outcome)

    def finish(self, final: RunLeaseRequest) -> None:
        """Queues the Completion or RunFailure behind every report."""
        self._outbox.finish(final)

    def lose(self, why: str) -> None:
        """The planner said that the lease is not ours any more."""
        with self._changed:
            if not self._lost and not self._done:
                self._log.warning("lease_lost", reason=why)
            self._lost = True
            self._changed.notify_all()

    def wait_over(self, timeout: float) -> bool:
        """Whether the outcome is stored or the lease lost, waiting at most so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done or self._lost, timeout)

    def _over(self) -> bool:
        return self._done or self._lost or self._closing

    def _keep_attached(self) -> None:
        while not self._over():
            status = self._attach()
            if self._over():
                return
            if status.code not in TRANSIENT:
                self.lose(str(status))
                return
            if self._connected:
                self._connected = False
                self._log.warning("stream_lost", status=str(status))
                self._facts.tell(PlannerSeen(False))
            with self._changed:
                self._changed.wait_for(self._over, self._backoff.next())

    def _attach(self) -> Status:
        """One stream, from attaching to its end; the status that it ended with."""
        requests = self._outbox.open(Attach(lease=self.lease, executor=self._executor))
        call = self.stub.RunLease(requests)
        with self._changed:
            self._call = call
            if self._over():
                call.cancel()
        try:
            for response in call:
                self._handle(response)
                if self._over():
                    break
        except grpc.RpcError as error:
            return Status.of(error)
        finally:
            self._outbox.close()
            call.cancel()
        return Status(grpc.StatusCode.UNAVAILABLE, "the planner ended the stream")

    def _handle(self, response: RunLeaseResponse) -> None:
        if not self._connected:
            self._connected = True
            self._log.info("stream_resumed")
            self._facts.tell(PlannerSeen(True))
        self._backoff.reset()
        kind = response.WhichOneof("message")
        with self._changed:
            if kind == "attached":
                self._outbox.resume_at(response.attached.next_step)
            elif kind == "cancel":
                self._cancel_reason = response.cancel.reason or "cancelled by the planner"
            elif kind == "done":
                self._done = True
            self._changed.notify_all()
