"""Measures ranks of one thread each against one rank of one thread, in rounds of both."""

from __future__ import annotations

import argparse
import statistics

from executor.engine.program import Topology
from executor.engine.sharing import Exchanges
from tests.bench.parallel.forwards import CHANNELS, DOUBLE, HEADS, SIDE, SINGLE, TEXT, timed
from tests.executor.rank_farm import RankFarm

ALONE = Topology()
LANES: dict[str, Topology] = {
    "one rank": ALONE,
    "Ulysses 2": Topology(2, ulysses_size=2),
    "Ulysses 2, async": Topology(2, ulysses_size=2, ulysses_async=True),
    "Ulysses 2, 8 bits": Topology(2, ulysses_size=2, ulysses_float8=True),
    "ring 2, p2p": Topology(2, ring_size=2),
    "ring 2, allgather": Topology(2, ring_size=2, ring_rotate_method="allgather"),
    "TP 2": Topology(2, tp_size=2),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.parallel", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--forwards", type=int, default=2, help="of every lane in a round")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in LANES}
    counts: dict[str, Exchanges] = {}
    farm = RankFarm()
    try:
        # The first round warms up.
        for turn in range(options.rounds + 1):
            for name, topology in LANES.items():
                (own, counts[name]), *_ = farm.run(
                    topology.world_size, timed, topology, options.forwards
                )
                if turn:
                    seconds[name].append(min(own))
    finally:
        farm.close()
    print(
        f"FLUX, {DOUBLE} + {SINGLE} blocks of {HEADS} x {CHANNELS} channels, "
        f"{SIDE * SIDE} + {TEXT} tokens, fp32, {options.rounds} rounds; medians (quartiles)"
    )
    print(f"  {'':20}{'s':>8}  {'speed-up':26}efficiency  sent by rank 0 in a forward")
    for name, topology in LANES.items():
        speed = [a / b for a, b in zip(seconds["one rank"], seconds[name], strict=True)]
        low, middle, high = statistics.quantiles(speed, n=4)
        sent = ", ".join(
            f"{kind} ({group}) {calls} x, {nbytes / 2**20:.2f} MiB"
            for (kind, group), (calls, nbytes) in counts[name].items()
        )
        print(
            f"  {name:20}{statistics.median(seconds[name]):8.3f}  "
            f"{f'{middle:.2f} ({low:.2f} to {high:.2f})':26}"
            f"{middle / topology.world_size:10.2f}  {sent}"
        )


if __name__ == "__main__":
    main()
