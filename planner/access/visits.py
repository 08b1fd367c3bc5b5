"""The calls that are open: each for as long as what proved its caller still does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from planner.access.identity import Admission, called_by
from planner.access.tokens import Entry, TokenFile
from planner.errors import CallRefused, ErrorReason

_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 1.0


class Visits:
    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens
        self._open: dict[Admission, tuple[Entry, asyncio.Timeout]] = {}

    @asynccontextmanager
    async def of(self, entry: Entry) -> AsyncIterator[None]:
        """Binds the entry's identity to what runs inside, which ends once the entry is no more.

        Raises:
            CallRefused: UNAVAILABLE, since whoever has another token may come back with that.
        """
        with called_by(entry.identity) as admission:
            try:
                async with asyncio.timeout(None) as bound:
                    self._open[admission] = entry, bound
                    yield
            except TimeoutError:
                if not admission.ended:
                    raise
                raise CallRefused(
                    grpc.StatusCode.UNAVAILABLE,
                    ErrorReason.CREDENTIALS_REVOKED,
                    "the token or certificate of this call is no longer known, or has expired",
                    retry_seconds=_RETRY_SECONDS,
                ) from None
            finally:
                self._open.pop(admission, None)

    async def keep(self) -> None:
        """Looks after the open calls until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._open:
                self._end_unproven()

    def _end_unproven(self) -> None:
        known = frozenset(self._tokens.entries())
        now = asyncio.get_running_loop().time()
        for admission, (entry, bound) in self._open.items():
            if not admission.ended and (entry not in known or entry.has_expired()):
                admission.ended = True
                bound.reschedule(now)
