"""``parallel_auto.json``: which sizes a ``parallelism_config`` gets on so many ranks.

ditplan departs on purpose in three ways: sizes that leave ranks idle or need more than there are
are refused; a size of null is a size that is not given, where the peer ends in a TypeError; what
the peer refuses only once it runs (``ulysses_anything`` with a ring) is refused at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.models.facts import (
    Architecture,
    BlockGroup,
    BlockList,
    ModelDefaults,
    ModelFacts,
    Target,
)
from tests.conformance.verdict import MismatchError, expect

# Enough heads for every size in question, so that only the sizes are judged.
_MODEL = ModelFacts(
    architecture=Architecture(
        family="any",
        pipeline_class="AnyPipeline",
        targets=(Target("transformer", "Any", (BlockList("blocks", 1),), 720720, 1),),
    ),
    groups=(BlockGroup("transformer", ("blocks",)),),
    defaults=ModelDefaults(28, 64, 64, 64),
)


def cases(recorded: list[dict[str, Any]]) -> Iterator[tuple[str, Callable[[], None]]]:
    for case in recorded:
        yield f"world {case['world_size']} {case['config']}", partial(_check, case)


def _check(case: dict[str, Any]) -> None:
    world, result = case["world_size"], case["result"]
    config = case["config"]
    if result.get("type") == "TypeError" and None in config.values():
        return
    # The peer without torch.distributed takes the world for one rank.
    request = Request(world_size=1 if world is None else world)
    compiled = compile_config(json.dumps({"parallelism_config": config}), _MODEL, request)
    sizes = [result.get(name) or 1 for name in ("ulysses", "ring", "tp")]
    covers = "error" not in result and result["used_ranks"] == request.world_size
    if config.get("ulysses_anything") and sizes[1] > 1:
        covers = False
    if compiled.program is None:
        if covers:
            messages = "; ".join(d.message for d in compiled.diagnostics)
            raise MismatchError(f"refused: {messages}; recorded {sizes}")
        return
    topology = compiled.program.topology
    got = [topology.ulysses_size, topology.ring_size, topology.tp_size]
    expect("ulysses, ring, tp", got, sizes if covers else "refused")
