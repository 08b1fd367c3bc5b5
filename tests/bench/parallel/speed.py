"""Ranks of one thread each against one rank of one thread, in rounds of both."""

from __future__ import annotations

from typing import Any

from executor.engine.program import Topology
from executor.engine.sharing import Exchanges
from tests.bench.parallel.forwards import CHANNELS, DOUBLE, HEADS, SIDE, SINGLE, TEXT, timed
from tests.bench.report import Claim, Figure, Table
from tests.executor.rank_farm import RankFarm

FORWARDS = 2
"""Of every lane in a round."""
ALONE = "one rank"
LANES: dict[str, dict[str, Any]] = {
    "Ulysses 2": {"ulysses_size": 2},
    "Ulysses 2, async": {"ulysses_size": 2, "ulysses_async": True},
    "Ulysses 2, 8 bits": {"ulysses_size": 2, "ulysses_float8": True},
    "ring 2, p2p": {"ring_size": 2},
    "ring 2, allgather": {"ring_size": 2, "ring_rotate_method": "allgather"},
    "TP 2": {"tp_size": 2},
}
"""Keys of a ``parallelism_config``, which are those of a topology."""


def speed_ups(farm: RankFarm, rounds: int) -> tuple[Table, Claim]:
    """Every lane once a round; the first round warms up."""
    lanes = {ALONE: Topology()} | {name: Topology(2, **keys) for name, keys in LANES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in lanes}
    exchanges: dict[str, Exchanges] = {}
    for turn in range(rounds + 1):
        for name, topology in lanes.items():
            (own, exchanges[name]), *_ = farm.run(topology.world_size, timed, topology, FORWARDS)
            if turn:
                seconds[name].append(min(own))
    found = {
        name: [a / b for a, b in zip(seconds[ALONE], own, strict=True)]
        for name, own in seconds.items()
        if name != ALONE
    }
    rows = tuple(
        (
            name,
            Figure.of(seconds[name], ".3f", " s"),
            Figure.of(speed),
            Figure.of([each / 2 for each in speed]),
            _sent(exchanges[name]),
        )
        for name, speed in found.items()
    )
    alone = (ALONE, Figure.of(seconds[ALONE], ".3f", " s"), "", "", "")
    table = Table(
        f"A forward on two ranks: FLUX of {DOUBLE} + {SINGLE} blocks, {HEADS} x {CHANNELS} "
        f"channels, {SIDE * SIDE} + {TEXT} tokens, fp32, {rounds} rounds",
        ("", "a forward", "speed-up", "efficiency", "rank 0 sends in a forward"),
        (alone, *rows),
    )
    of = Figure.of(found["Ulysses 2"])
    claim = Claim("speed-up of a forward by a second rank, Ulysses", of, "2", "the bound")
    return table, claim


def _sent(exchanges: Exchanges) -> str:
    calls = ", ".join(f"{calls} {kind}" for (kind, _), (calls, _) in exchanges.items())
    return f"{sum(nbytes for _, nbytes in exchanges.values()) / 2**20:.2f} MiB in {calls}"
