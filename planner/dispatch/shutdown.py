"""Whether the planner is on its way out."""

from __future__ import annotations

import grpc

from planner.errors import CallRefused, ErrorReason


class Shutdown:
    """Begins once; from then on every call that waits, or would make work, is refused."""

    def __init__(self) -> None:
        self.begun = False

    def refuse_if_begun(self) -> None:
        if self.begun:
            raise CallRefused(
                grpc.StatusCode.UNAVAILABLE,
                ErrorReason.STOPPING,
                "the planner is stopping; connect again",
                retry_seconds=1.0,
            )
