"""How many executors the work asks for, as the number that an autoscaler divides: pure.

The autoscaler takes ceil(metric / target) executors, where ``target`` is how many seconds of work
one executor is meant to have. So the metric is the predicted seconds of everything that is queued
and of what is left of everything that runs, with two corrections:

- No run counts for more than one target. It cannot be spread over several executors: a run of ten
  minutes and a target of one minute ask for one executor, not for ten. So there are never more
  executors than runs either.
- The metric is at least one target for every run under way, however little is left of it. So
  ceil(metric / target) never falls below the executors that are busy, and to scale in takes idle
  ones as long as the autoscaler's victims are idle; where they are not, they drain.

The second is a bound on the whole and not one on each run: what runs now will have ended long
before the target is over, and its executors then take from the queue.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished work in predicted seconds: of each run how many are left."""

    queued: tuple[tuple[float, int], ...] = ()
    """Seconds of runs that are alike, and how many of them there are."""
    running: tuple[float, ...] = ()

    @property
    def active(self) -> bool:
        return bool(self.queued or self.running)

    @property
    def queued_seconds(self) -> float:
        return sum(seconds * count for seconds, count in self.queued)

    @property
    def running_seconds(self) -> float:
        return sum(self.running)


def demand(backlog: Backlog, target: int) -> float:
    """The metric, in seconds; ``target`` is above zero."""
    queued = sum(count * min(seconds, target) for seconds, count in backlog.queued)
    running = sum(min(seconds, target) for seconds in backlog.running)
    return max(queued + running, float(target * len(backlog.running)))
