"""`python -m tests.chaos_ranks`: many faults, and a table of what they cost."""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from tests.chaos_ranks.campaign import Fault, Outcome, campaign
from tests.executor.tiny import flux


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos_ranks", description=__doc__)
    parser.add_argument("--injections", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    injections, ranks = options.injections, options.ranks
    chance = random.Random(options.seed)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        model = flux.save(Path(name) / "model")
        with campaign(Path(name), model, ranks=ranks, injections=injections) as faults:
            for number in range(1, injections + 1):
                outcomes.append(faults.inject(fault := Fault.draw(chance, ranks)))
                print(
                    f"{number:3} {fault}: told after {outcomes[-1].told:.2f} s, "
                    f"the next run's first step {outcomes[-1].recovered:.2f} s later",
                    flush=True,
                )
    print(_table(outcomes))


def _table(outcomes: list[Outcome]) -> str:
    by_kind = defaultdict(list)
    for outcome in outcomes:
        where = "rank 0" if outcome.fault.rank == 0 else "others"
        by_kind[outcome.fault.kind, where].append(outcome)
    lines = [
        f"{'fault':6} {'on':7} {'count':>5}  told after: median, most   recovery: median, most"
    ]
    for (kind, where), found in sorted(by_kind.items()):
        told, recovered = [o.told for o in found], [o.recovered for o in found]
        lines.append(
            f"{kind:6} {where:7} {len(found):5}  {median(told):18.2f} {max(told):7.2f} "
            f"{median(recovered):18.2f} {max(recovered):7.2f}"
        )
    return "\n".join([*lines, f"{len(outcomes)} faults, every next picture right"])


if __name__ == "__main__":
    main()
