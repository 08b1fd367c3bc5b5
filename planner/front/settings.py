"""How a replica is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ditplan.common.connection import PLAIN, Connection

from planner.settings import Limits, Security, Timing


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """``dispatch``: where the planner that dispatches listens; ``connection``: how it is dialled.

    The rest is as in `planner.settings.Settings`; of the limits, those on requests and streams.
    """

    dispatch: str
    connection: Connection = PLAIN
    listen: str = "127.0.0.1:7330"
    model_roots: tuple[Path, ...] = ()
    timing: Timing = field(default_factory=Timing)
    limits: Limits = field(default_factory=Limits)
    security: Security = field(default_factory=Security)
    metrics_listen: str = ""
    log_level: str = "info"
