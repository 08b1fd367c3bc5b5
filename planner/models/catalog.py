"""Published checkpoints that are known by name: the parts of their configs that facts need.

``catalog.json`` is written by a script from diffusers' class defaults; each entry says what it
follows. Weights, revisions and licences are no part of it.
"""

from __future__ import annotations

import json
from pathlib import Path

from planner.models.reading import Configs

NAMED: dict[str, Configs] = {
    name: entry["configs"]
    for name, entry in json.loads(Path(__file__).with_name("catalog.json").read_bytes()).items()
}
