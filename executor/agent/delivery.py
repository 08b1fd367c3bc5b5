"""Brings a run's results and its outcome to the planner, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc
from ditplan.dispatch.v1.dispatch_pb2 import Completion, RunFailure, RunLeaseRequest
from structlog.typing import FilteringBoundLogger

from executor.agent.artifacts import ArtifactFile, upload_requests
from executor.agent.backoff import Backoff
from executor.agent.lease import LeasedRun
from executor.agent.status import TRANSIENT, Status

FIRST_RETRY_SECONDS = 0.1
MOST_RETRY_SECONDS = 2.0
# How often the deadline is looked at again, since a shutdown brings it forward.
POLL_SECONDS = 0.2
# A file that is too large now is too large later; a disk that is full says when to try again.
WORTH_RETRYING = TRANSIENT - {grpc.StatusCode.RESOURCE_EXHAUSTED}


class RejectedArtifactError(Exception):
    """The planner does not take a result, and trying again would not help."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Delivery:
    """Tries until ``deadline()``, a time of the monotonic clock, or until the lease is lost."""

    def __init__(
        self, leased: LeasedRun, *, deadline: Callable[[], float], log: FilteringBoundLogger
    ) -> None:
        self._leased = leased
        self._deadline = deadline
        self._log = log

    def store(self, files: list[ArtifactFile]) -> bool:
        """Whether the planner has every file.

        Raises:
            RejectedArtifactError: the planner will not take one.
        """
        return all(self._upload(file) for file in files)

    def conclude(self, outcome: Completion | RunFailure) -> None:
        """Waits until the planner has stored the outcome; logs where it could not be told."""
        if isinstance(outcome, Completion):
            self._leased.finish(RunLeaseRequest(completion=outcome))
        else:
            self._leased.finish(RunLeaseRequest(failure=outcome))
        while not self._leased.wait_over(min(POLL_SECONDS, self._seconds_left())):
            if self._seconds_left() == 0:
                self._log.error("outcome_not_delivered")
                return

    def _upload(self, file: ArtifactFile) -> bool:
        backoff = Backoff(first=FIRST_RETRY_SECONDS, most=MOST_RETRY_SECONDS)
        while not self._leased.lost and self._seconds_left() > 0:
            requests = upload_requests(self._leased.lease, file)
            try:
                response = self._leased.stub.UploadArtifact(requests, timeout=self._seconds_left())
                if response.artifact.sha256 == file.sha256:
                    return True
                self._log.warning("artifact_damaged", artifact=file.name)
            except grpc.RpcError as error:
                self._judge(file, Status.of(error))
            self._leased.wait_over(min(backoff.next(), self._seconds_left()))
        self._log.error("artifact_not_delivered", artifact=file.name)
        return False

    def _judge(self, file: ArtifactFile, status: Status) -> None:
        """Returns where the upload is worth another try."""
        if status.code is grpc.StatusCode.ABORTED:
            self._leased.lose(str(status))
        elif status.code not in WORTH_RETRYING and not status.retry_later:
            raise RejectedArtifactError(
                status.code, f"{file.name} was not stored: {status.details}"
            )

    def _seconds_left(self) -> float:
        return max(0.0, self._deadline() - time.monotonic())
