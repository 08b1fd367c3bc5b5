"""The service: calls, what it adds to a run, watchers, replicas."""

from __future__ import annotations

from tests.bench.report import Findings
from tests.bench.service.rates import call_rates
from tests.bench.service.replica import replicas
from tests.bench.service.runs import runs
from tests.bench.service.watchers import idle_watchers

METHOD = (
    "Planner, replica, executor and echo are processes of their own, as users run them; executor "
    "and clients run on the same cores. An echo answers with the bytes that the planner gave, in "
    "the same round. What is added to a run is the time from the call to its last event less what "
    "the executor records for the run. Directly and through a replica take turns."
)


def measure(*, look: bool) -> Findings:
    rates, creating = call_rates(rounds=3 if look else 7, seconds=0.5 if look else 2.0)
    watchers = idle_watchers(count=200 if look else 1000)
    ran, added = runs(rounds=3 if look else 25, seconds=1.0 if look else 3.0)
    through, readers = replicas(
        rounds=3 if look else 9, calls=200 if look else 1000, readers=10 if look else 50
    )
    return Findings(
        "The service",
        METHOD,
        tables=(rates, ran, watchers, through, readers),
        claims=(added, creating),
    )
