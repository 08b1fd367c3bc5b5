"""Kills, stops and ends a planner and its executors under load: nothing accepted is lost.

Run it with `make chaos`. The faults and the load come of a seed, which a failure prints.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ditplan.v1.generation_pb2 import GenerationSpec

from executor.placement.quiet import silence_libraries
from tests.chaos.clients import Client, Story, Violation
from tests.chaos.fleet import Fleet

CLIENTS = 6
EXECUTORS = 2
PAUSE_SECONDS = (0.4, 2.0)
AT_PLANNER = 0.3
# What a run may end of when its executors die again and again, or when it is cancelled.
EXCUSES = {"FAILED": {"UNAVAILABLE"}, "CANCELLED": {"CANCELLED"}}
CACHE = """\
cache_config:
  max_warmup_steps: 4
  Fn_compute_blocks: 1
  residual_diff_threshold: 0.5
  max_continuous_cached_steps: 2
  enable_taylorseer: true
"""


def _specs(model: Path) -> list[GenerationSpec]:
    return [
        GenerationSpec(
            model=str(model),
            prompt="a red circle",
            config=config,
            num_inference_steps=steps,
            seed=seed,
            height=32,
            width=32,
        )
        for seed, (config, steps) in enumerate(
            [("", 10), ("", 60), (CACHE, 20), (CACHE, 120), (CACHE, 250)]
        )
    ]


def _memory_segments() -> set[str]:
    return set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()


def _verify(story: Story, pictures: dict[bytes, str]) -> str:
    """What became of it; a picture must be the undisturbed one."""
    assert story.final is not None
    if story.state == "SUCCEEDED":
        digest = hashlib.sha256(story.picture).hexdigest()
        if digest != pictures[story.spec.SerializeToString()]:
            raise Violation(f"{story.name}: another picture than undisturbed")
    elif story.final.failure.code not in EXCUSES[story.state]:
        raise Violation(f"{story.name} {story.state}: {story.final.failure}")
    elif story.state == "CANCELLED" and not story.cancelled:
        raise Violation(f"{story.name} was cancelled by nobody")
    return story.state


def main() -> None:
    silence_libraries()
    # Says what it cannot load unless it is silent.
    from tests.executor.tiny import flux

    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--generations", type=int, default=60, help="at least so many")
    parser.add_argument("--seconds", type=float, default=90, help="of faults, at least")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    before = _memory_segments()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        model = flux.save(directory / "model")
        fleet = Fleet(directory, model, EXECUTORS, random.Random(chance.random()))
        try:
            counts, faults, dropped = _campaign(fleet, _specs(model), chance, options)
        except Violation as violation:
            print(f"seed {options.seed}: {violation}", file=sys.stderr)
            for file in directory.glob("*.log"):
                print(f"--- {file.name}\n{file.read_text()[-4000:]}", file=sys.stderr)
            sys.exit(1)
        finally:
            fleet.end()
        starts = {member.name: member.starts for member in fleet.members}
    left = _memory_segments() - before
    if left:
        sys.exit(f"seed {options.seed}: shared memory is left: {left}")
    print(f"faults: {', '.join(f'{n} {kind}' for kind, n in sorted(faults.items()))}")
    print(f"starts: {', '.join(f'{member} {n}' for member, n in starts.items())}")
    print(f"streams dropped by clients: {dropped}")
    print(f"generations: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}")
    print("every accepted generation ended, every picture is the undisturbed one")


def _campaign(
    fleet: Fleet,
    specs: list[GenerationSpec],
    chance: random.Random,
    options: argparse.Namespace,
) -> tuple[Counter[str], Counter[str], int]:
    calm = Client(fleet.planner.address, 0)
    pictures = {}
    for spec in specs:
        story = calm.story(spec)
        while story.state == "CANCELLED":
            story = calm.story(spec)
        pictures[spec.SerializeToString()] = hashlib.sha256(story.picture).hexdigest()
    calm.close()
    faults: Counter[str] = Counter()
    over = threading.Event()
    until = time.monotonic() + options.seconds
    each = -(-options.generations // CLIENTS)

    def strike() -> None:
        while not over.wait(chance.uniform(*PAUSE_SECONDS)) and time.monotonic() < until:
            faults[fleet.strike(at_planner=AT_PLANNER)] += 1

    def load(seed: int) -> tuple[Counter[str], int]:
        own, client = random.Random(seed), Client(fleet.planner.address, seed)
        counts: Counter[str] = Counter()
        try:
            # As long as there are faults, and as many as are asked for.
            while (counts.total() < each or time.monotonic() < until) and not over.is_set():
                counts[_verify(client.story(own.choice(specs)), pictures)] += 1
        except BaseException:
            over.set()
            raise
        finally:
            client.close()
        return counts, client.dropped

    striker = threading.Thread(target=strike)
    striker.start()
    total, dropped = Counter[str](), 0
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            seeds = [chance.randrange(1, 2**32) for _ in range(CLIENTS)]
            for counts, streams in pool.map(load, seeds):
                total += counts
                dropped += streams
    finally:
        over.set()
        striker.join()
    return total, faults, dropped


if __name__ == "__main__":
    main()
