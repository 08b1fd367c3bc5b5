"""The planner: compile times, plans a second, start, memory, size."""

from __future__ import annotations

from tests.bench.planner.compiling import compile_times
from tests.bench.planner.image import sizes
from tests.bench.planner.rates import call_rates, memory
from tests.bench.planner.start import commands, servers
from tests.bench.report import Findings

METHOD = (
    "Compile times are processor time of one thread; calls are those of 8 clients that each wait "
    "for one answer after the other. The echo is a Python gRPC server of its own that answers with "
    "the same bytes; it, bare Python and torch have their turn in every round. A request that is "
    "compiled anew differs from all before it; one that is answered again does not. Memory is "
    "what is resident."
)


def measure(*, look: bool) -> Findings:
    rounds = 2 if look else 9
    found = (
        compile_times(runs=10 if look else 50),
        call_rates(rounds=3 if look else 7, seconds=0.5 if look else 2.0),
        commands(rounds=rounds),
        servers(rounds=rounds),
        memory(rounds=1 if look else 3),
        sizes(),
    )
    tables, claims = zip(*found, strict=True)
    return Findings("The planner", METHOD, tables=tables, claims=claims)
