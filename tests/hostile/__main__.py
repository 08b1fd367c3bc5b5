"""Sends 10,000 hostile requests to a planner: each gets its status, and the service goes on.

Run it with `make hostile`.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.e2e.processes import Service
from tests.hostile.campaign import attack


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        data = str(directory / "data")
        planner = Service(directory, "planner", "-m", "planner", "serve", "planner", "--data", data)
        try:
            planner.await_ready()
            verdict = attack(
                planner.address,
                planner.process.pid,
                requests=options.requests,
                seed=options.seed,
            )
            failed = planner.log.count('"call_failed"')
        finally:
            planner.kill()
    print(f"seed {options.seed}, {verdict.codes.total()} requests")
    print(", ".join(f"{count} {code}" for code, count in verdict.codes.most_common()))
    print(f"worst answer {verdict.worst_seconds:.2f} s, memory grew {verdict.growth_mb:.0f} MB")
    for finding in verdict.findings[:20]:
        print(f"finding: {finding}", file=sys.stderr)
    if verdict.findings or failed:
        sys.exit(f"{len(verdict.findings)} findings, {failed} bugs in the planner's log")
    print("no INTERNAL, no UNKNOWN, nothing hung")


if __name__ == "__main__":
    main()
