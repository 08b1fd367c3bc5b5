"""Asks the planner for work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
from ditplan.common.channel import LASTING
from ditplan.common.connection import PLAIN, Connection, ConnectionOptionsError
from ditplan.dispatch.v1.dispatch_pb2 import AcquireLeaseRequest, AcquireLeaseResponse
from ditplan.dispatch.v1.dispatch_pb2_grpc import DispatchServiceStub
from ditplan.v1.executor_pb2 import Executor
from structlog.typing import FilteringBoundLogger

from executor.agent.backoff import Backoff
from executor.agent.status import Status
from executor.agent.telemetry.facts import Facts, PlannerSeen

WAIT_SECONDS = 20.0
# While it is not known whether the planner is there, so that the answer comes at once.
PROBE_WAIT_SECONDS = 0.0
# What the answer may take on top of the wait.
ANSWER_SECONDS = 10.0
STOP_POLL_SECONDS = 0.2
FIRST_RETRY_SECONDS = 0.1
MOST_RETRY_SECONDS = 5.0
# Trying again would not help.
FATAL = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
CHANNEL_OPTIONS = (
    # A run comes with the pictures that it starts from.
    ("grpc.max_receive_message_length", 16 << 20),
    *LASTING,
    ("grpc.enable_retries", 0),
)


class RefusedByPlannerError(Exception):
    """The planner does not want this executor; the message says why."""


class Dialer:
    """Holds the channel to the planner and asks for one lease after the other."""

    def __init__(
        self,
        planner: str,
        connection: Connection = PLAIN,
        *,
        stop: threading.Event,
        log: FilteringBoundLogger,
        facts: Facts,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_answer`` is called whenever the planner answers after it did not.

        Raises:
            ConnectionOptionsError: the planner cannot be dialled so.
        """
        self._planner = planner
        self._connection = connection
        self._executor = Executor()
        self._stop = stop
        self._log = log
        self._facts = facts
        self._on_answer = on_answer
        self._backoff = Backoff(first=FIRST_RETRY_SECONDS, most=MOST_RETRY_SECONDS)
        self._state: grpc.StatusCode | None = None
        self._open()

    def announce(self, executor: Executor) -> None:
        """What the planner is told from the next call on."""
        self._executor = executor

    def _open(self) -> None:
        self._stamp = self._connection.stamp()
        self._channel = self._connection.open(self._planner, CHANNEL_OPTIONS)
        self.stub = DispatchServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def acquire(self) -> AcquireLeaseResponse | None:
        """Waits for work, however long: a lease with its assignment. None once `stop` is set.

        Raises:
            RefusedByPlannerError: the planner's answer is final.
        """
        while not self._stop.is_set():
            answering = self._state is grpc.StatusCode.OK
            wait = WAIT_SECONDS if answering else PROBE_WAIT_SECONDS
            asked_at = time.monotonic()
            response = self._ask(wait)
            if response is not None:
                if response.HasField("lease"):
                    self._backoff.reset()
                    return response
                if time.monotonic() - asked_at >= wait / 2:
                    self._backoff.reset()
                    continue
            # Unreachable, or it does not wait: a planner that is about to stop.
            self._stop.wait(self._backoff.next())
        return None

    def _ask(self, wait: float) -> AcquireLeaseResponse | None:
        """One call; None where it failed or was given up for `stop`."""
        answered = threading.Event()
        call = self.stub.AcquireLease.future(
            AcquireLeaseRequest(executor=self._executor, wait_seconds=wait),
            timeout=wait + ANSWER_SECONDS,
        )
        call.add_done_callback(lambda _: answered.set())
        while not answered.wait(STOP_POLL_SECONDS):
            if self._stop.is_set():
                call.cancel()
        try:
            response = call.result()
        except grpc.FutureCancelledError:
            return None
        except grpc.RpcError as error:
            self._failed(Status.of(error))
            return None
        self._note(Status(grpc.StatusCode.OK, ""))
        return response

    def _failed(self, status: Status) -> None:
        if status.code in FATAL:
            raise RefusedByPlannerError(f"planner {self._planner}: {status}")
        self._note(status)
        dumb = status.code is grpc.StatusCode.DEADLINE_EXCEEDED
        if dumb or self._connection.stamp() != self._stamp:
            self._open_again()

    def _open_again(self) -> None:
        before = self._channel
        try:
            self._open()
        except ConnectionOptionsError as error:
            # Files of TLS of which half are replaced, perhaps.
            self._log.warning("credentials_kept", reason=str(error))
        else:
            before.close()

    def _note(self, status: Status) -> None:
        """Logs a change of state, not every try."""
        if status.code is self._state:
            return
        self._state = status.code
        self._facts.tell(PlannerSeen(status.code is grpc.StatusCode.OK))
        if status.code is grpc.StatusCode.OK:
            self._log.info("planner_reached", planner=self._planner)
            self._on_answer()
        else:
            self._log.warning("planner_unreachable", planner=self._planner, status=str(status))
