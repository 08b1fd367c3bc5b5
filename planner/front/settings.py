"""How a replica is started."""

from __future__ import annotations

from dataclasses import dataclass

from ditplan.common.connection import PLAIN, Connection

from planner.settings import ListenerSettings


@dataclass(frozen=True, slots=True)
class FrontSettings(ListenerSettings):
    """``dispatch``: where the planner that dispatches listens; ``connection``: how it is dialled.

    Of the limits, those on requests and streams count.
    """

    dispatch: str
    connection: Connection = PLAIN
