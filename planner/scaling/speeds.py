"""What is remembered of the runs that ended, within bounds."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from planner.scaling.speed import Observation, observed, predicted_seconds
from planner.store.values import Finished, Load

_MAX_RUNS = 64
_MAX_KEYS = 256
_MAX_KNOWN = 4096


class Speeds:
    """Learns from runs and predicts others; memory is bounded whatever comes."""

    def __init__(self, runs: Iterable[Finished] = ()) -> None:
        """``runs``: those that are known already, the oldest first."""
        self._runs: OrderedDict[tuple[str, str], deque[Observation]] = OrderedDict()
        self._known: dict[Load, float] = {}
        for run in runs:
            self.learn(run)

    def learn(self, run: Finished) -> None:
        observation = observed(run)
        if observation is None:
            return
        for key in _keys(run.load):
            self._runs.setdefault(key, deque(maxlen=_MAX_RUNS)).appendleft(observation)
            self._runs.move_to_end(key)
        while len(self._runs) > _MAX_KEYS:
            self._runs.popitem(last=False)
        self._known.clear()

    def seconds(self, load: Load) -> float:
        """Of a whole run, as predicted from those of the same needs, else of the same model."""
        known = self._known.get(load)
        if known is None:
            runs = next((self._runs[key] for key in _keys(load) if key in self._runs), ())
            known = predicted_seconds(load, list(runs))
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[load] = known
        return known


def _keys(load: Load) -> tuple[tuple[str, str], ...]:
    return ("needs", load.requirement), ("model", load.model)
