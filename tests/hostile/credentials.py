"""A planner's tokens, and what callers show that have none, a wrong or an old one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from tests.hostile.campaign import Credential

_OPENS = {
    "client": ("PlannerService", "GenerationService"),
    "executor": ("DispatchService",),
    "admin": ("PlannerService", "GenerationService", "MonitorService"),
}


def issued(file: Path) -> list[Credential]:
    """Writes a file of tokens; a credential of each role and some that open nothing."""
    entries = []
    for name, role in [*((role, role) for role in _OPENS), ("old", "admin")]:
        digest = hashlib.sha256(_token(name).encode()).hexdigest()
        entries.append({"name": name, "role": role, "sha256": digest})
    entries[-1]["expires"] = "2020-01-01T00:00:00Z"
    file.write_text(yaml.safe_dump(entries))
    return [
        *(Credential(f"Bearer {_token(role)}", opens) for role, opens in _OPENS.items()),
        *(Credential(f"Bearer {text}") for text in (_token("old"), "x", "x" * 5000, "")),
        *(Credential(text) for text in ("", "Basic eDp4", "Bearer", _token("admin"))),
    ]


def _token(name: str) -> str:
    return f"{name}-token-{'0' * 40}"
