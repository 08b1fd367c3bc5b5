"""What the ranks answer to commands, and which of them are lost."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from ditplan.runtime.v1.runtime_pb2 import Failure, Report


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a command was not done by all: the failure to tell, and the rank where it lies.

    ``loses``: why that rank counts as lost from now on; empty: it does not.
    """

    failure: Failure
    rank: int = 0
    loses: str = ""


class Answers:
    """Commands count from 1; number 0 is the model, which every rank loads unasked.

    Reports come in the threads of lines and of the own rank, and wake the thread that waits.
    """

    def __init__(self, size: int) -> None:
        """``size``: how many ranks answer."""
        self._size = size
        self._changed = threading.Condition()
        self._answers: dict[int, dict[int, Report]] = {0: {}}
        self._lost: dict[int, str] = {}
        self._number = 0

    def expect(self) -> int:
        """The number of the next command, answers to which are kept from now on."""
        with self._changed:
            self._number += 1
            self._answers[self._number] = {}
            return self._number

    def take(self, rank: int, report: Report) -> None:
        with self._changed:
            if (answers := self._answers.get(report.number)) is not None:
                answers[rank] = report
                self._changed.notify_all()

    def lose(self, rank: int, why: str) -> None:
        with self._changed:
            self._lost.setdefault(rank, why)
            self._changed.notify_all()

    @property
    def lost(self) -> str:
        """Why ranks are lost; empty where none is."""
        return "; ".join(self._lost.values())

    def of(
        self, number: int, seconds: float | None = None, *, cause_seconds: float = 0.0
    ) -> dict[int, Report]:
        """By rank, in the order in which they came, what was answered; to be asked for once.

        Waits until every rank has answered, or one has failed or is lost, but so many ``seconds``
        at most. Where failures are only of losing another rank, the cause has ``cause_seconds`` to
        come, too.
        """
        with self._changed:
            answers = self._answers[number]
            self._changed.wait_for(lambda: self._decided(answers), seconds)
            self._changed.wait_for(lambda: self._explained(answers), cause_seconds)
            return self._answers.pop(number)

    def _decided(self, answers: Mapping[int, Report]) -> bool:
        return bool(self._lost or failures(answers)) or len(answers) == self._size

    def _explained(self, answers: Mapping[int, Report]) -> bool:
        found = failures(answers).values()
        return bool(self._lost or not found) or not all(failure.by_peer for failure in found)


def failures(answers: Mapping[int, Report]) -> dict[int, Failure]:
    return {rank: each.failure for rank, each in answers.items() if each.HasField("failure")}


def silent(answers: Mapping[int, Report], size: int) -> list[int]:
    """The ranks that have not answered."""
    return sorted(set(range(size)) - answers.keys())


def fault_of(answers: Mapping[int, Report], size: int, lost: str) -> Fault | None:
    """The first cause that is known where not all ranks have done a command.

    ``lost``: why ranks are lost, if any is; failures of losing another rank say less.
    """
    found = failures(answers)
    causes = {r: f for r, f in found.items() if not f.by_peer} or found
    if lost and all(failure.by_peer for failure in causes.values()):
        return Fault(_unavailable(lost))
    for rank, failure in causes.items():
        named = f"rank {rank}: {failure.message}"
        loses = named if failure.device_failed else ""
        if failure.code != "INVALID_ARGUMENT":
            failure.message = named
        return Fault(failure, rank, loses)
    for rank in silent(answers, size):
        why = f"rank {rank} does not answer"
        return Fault(_unavailable(why), rank, why)
    return None


def _unavailable(message: str) -> Failure:
    return Failure(code="UNAVAILABLE", message=message, retryable=True)
