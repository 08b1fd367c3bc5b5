"""Compiles thousands of damaged configs; exits with 1 where one does harm."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from tests.fuzz.campaign import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    options = parser.parse_args()
    verdict = fuzz(options.cases, options.seed)
    print(
        f"{verdict.compiled} compiled, {verdict.refused} refused, "
        f"{len(verdict.findings)} findings; worst {verdict.worst_seconds * 1000:.1f} ms, "
        f"peak {verdict.peak_mb:.0f} MB (grew by {verdict.growth_mb:.0f}), seed {options.seed}"
    )
    for text, cause in verdict.findings:
        options.out.mkdir(parents=True, exist_ok=True)
        file = options.out / f"{hashlib.sha256(text).hexdigest()[:16]}.yaml"
        file.write_bytes(text)
        file.with_suffix(".txt").write_text(cause + "\n")
        print(f"{file}: {cause.strip().splitlines()[-1]}")
    return 1 if verdict.findings else 0


if __name__ == "__main__":
    sys.exit(main())
