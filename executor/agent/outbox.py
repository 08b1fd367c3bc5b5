"""What a run has to tell the planner, kept until the planner has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from ditplan.dispatch.v1.dispatch_pb2 import Attach, Heartbeat, RunLeaseRequest, StepReports
from ditplan.v1.generation_pb2 import StepOutcome

REPORT_INTERVAL = 0.1
HEARTBEAT_INTERVAL = 0.5


class Outbox:
    """Step outcomes and the final message of one run.

    The denoising thread puts in and never waits; one stream at a time takes out. It is given the
    steps from where the planner says, so none is lost or told twice.
    """

    def __init__(
        self,
        *,
        report_interval: float = REPORT_INTERVAL,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
    ) -> None:
        self._report_interval = report_interval
        self._heartbeat_interval = heartbeat_interval
        self._changed = threading.Condition()
        self._steps: list[StepOutcome] = []
        self._final: RunLeaseRequest | None = None
        # Counts streams; only the latest is served.
        self._stream = 0
        # Of the latest stream: the next step to send, None until the planner says which.
        self._cursor: int | None = None
        self._final_sent = False

    def add(self, outcome: StepOutcome) -> None:
        """Appends the next step, which is the one after the last."""
        with self._changed:
            self._steps.append(outcome)
            self._changed.notify_all()

    def finish(self, final: RunLeaseRequest) -> None:
        """Sets the Completion or RunFailure, which goes out after every step."""
        with self._changed:
            self._final = final
            self._changed.notify_all()

    def resume_at(self, step: int) -> None:
        """The planner holds every step before this one; heeded once a stream."""
        with self._changed:
            if self._cursor is None:
                self._cursor = min(step, len(self._steps))
                self._changed.notify_all()

    def open(self, attach: Attach) -> Iterator[RunLeaseRequest]:
        """The messages of a new stream, which replaces the one before.

        Reports come at most every ``report_interval`` seconds, heartbeats when nothing else went
        out for ``heartbeat_interval`` seconds. After the final message the iterator waits for
        `close`, so that the planner does not see the stream end before it has answered.
        """
        with self._changed:
            self._stream += 1
            self._cursor = None
            self._final_sent = False
            self._changed.notify_all()
            return self._messages(self._stream, attach)

    def close(self) -> None:
        """Ends the latest stream's messages."""
        with self._changed:
            self._stream += 1
            self._changed.notify_all()

    def _messages(self, stream: int, attach: Attach) -> Iterator[RunLeaseRequest]:
        yield RunLeaseRequest(attach=attach)
        sent_at = time.monotonic()
        reports_due = sent_at
        while (message := self._next(stream, reports_due, sent_at)) is not None:
            yield message
            sent_at = time.monotonic()
            if message.HasField("step_reports"):
                reports_due = sent_at + self._report_interval

    def _next(self, stream: int, reports_due: float, sent_at: float) -> RunLeaseRequest | None:
        """Waits for the next message of a stream; None when the stream is over."""
        heartbeat_due = sent_at + self._heartbeat_interval
        with self._changed:
            while stream == self._stream:
                now = time.monotonic()
                due = heartbeat_due
                if self._final_sent:
                    due = now + self._heartbeat_interval
                elif self._cursor is not None:
                    if self._cursor < len(self._steps):
                        if now >= reports_due or self._final is not None:
                            return self._take_reports(self._cursor)
                        due = min(due, reports_due)
                    elif self._final is not None:
                        self._final_sent = True
                        return self._final
                if now >= due:
                    return RunLeaseRequest(heartbeat=Heartbeat())
                self._changed.wait(due - now)
        return None

    def _take_reports(self, cursor: int) -> RunLeaseRequest:
        self._cursor = len(self._steps)
        return RunLeaseRequest(step_reports=StepReports(steps=self._steps[cursor:]))
