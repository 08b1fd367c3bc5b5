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
from tests.hostile.campaign import Credential, attack
from tests.hostile.credentials import issued


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    broken = False
    with tempfile.TemporaryDirectory() as name:
        for guarded in (False, True):
            directory = Path(name) / ("guarded" if guarded else "open")
            directory.mkdir()
            broken |= _attacked(directory, options.requests // 2, options.seed, guarded=guarded)
    if broken:
        sys.exit(f"seed {options.seed}")
    print("every request got its status: no INTERNAL, no UNKNOWN, nobody in who should not")


def _attacked(directory: Path, requests: int, seed: int, *, guarded: bool) -> bool:
    """Whether something was found; prints the counts."""
    arguments = ["-m", "planner", "serve", "planner", "--data", str(directory / "data")]
    credentials: list[Credential] = []
    if guarded:
        tokens = directory / "tokens.yaml"
        credentials = issued(tokens)
        arguments += ["--tokens", str(tokens)]
    planner = Service(directory, "planner", *arguments)
    try:
        planner.await_ready()
        verdict = attack(
            planner.address,
            planner.process.pid,
            requests=requests,
            seed=seed,
            credentials=credentials,
        )
        bugs = planner.log.count('"call_failed"')
    finally:
        planner.kill()
    kind = "with tokens" if guarded else "open"
    print(f"{kind}: {verdict.codes.total()} requests, seed {seed}")
    print("  " + ", ".join(f"{count} {code}" for code, count in verdict.codes.most_common()))
    print(f"  worst answer {verdict.worst_seconds:.2f} s, memory grew {verdict.growth_mb:.0f} MB")
    for finding in verdict.findings[:20]:
        print(f"finding: {finding}", file=sys.stderr)
    return bool(verdict.findings or bugs)


if __name__ == "__main__":
    main()
