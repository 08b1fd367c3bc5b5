"""Published checkpoints that are known by name: the parts of their configs that facts need.

``catalog.json`` is written by a script from diffusers' class defaults; each entry says what it
follows. Weights, revisions and licences are no part of it.
"""

from __future__ import annotations

import json
from pathlib import Path

from planner.models.reading import Configs

_ENTRIES = json.loads(Path(__file__).with_name("catalog.json").read_bytes())

NAMED: dict[str, Configs] = {name: entry["configs"] for name, entry in _ENTRIES.items()}

SOURCES: dict[str, str] = {name: entry["source"] for name, entry in _ENTRIES.items()}
"""Where an entry's values come from."""
