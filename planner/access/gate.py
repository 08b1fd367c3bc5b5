"""Who gets in: every call is authenticated, authorised and counted before it is parsed."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any

import grpc
import structlog

from planner.access.identity import ANONYMOUS, Role
from planner.access.tokens import Entry, TokenFile, token_digest
from planner.access.visits import Visits
from planner.errors import CallRefused, ErrorReason
from planner.settings import Limits

_CLIENTS = frozenset({Role.CLIENT, Role.ADMIN})
# A service that is not named here is nobody's.
ROLES = {
    "ditplan.v1.PlannerService": _CLIENTS,
    "ditplan.v1.GenerationService": _CLIENTS,
    "ditplan.v1.MonitorService": frozenset({Role.ADMIN}),
    "ditplan.dispatch.v1.DispatchService": frozenset({Role.EXECUTOR}),
    "grpc.reflection.v1alpha.ServerReflection": frozenset(Role),
}
_STREAMS_RETRY_SECONDS = 5.0
_MAX_TOKEN = 1024

Entries = tuple[Entry, ...]
_Proof = Callable[[Entries], Entry | None]


class Gate:
    """``tokens`` None: everyone may do everything."""

    def __init__(self, tokens: TokenFile | None, limits: Limits) -> None:
        self._tokens = tokens
        self._visits = None if tokens is None else Visits(tokens)
        self._max_streams = limits.streams_per_client
        self._streams: Counter[str] = Counter()

    @property
    def asks_who_calls(self) -> bool:
        return self._tokens is not None

    async def keep(self) -> None:
        """Ends calls whose callers are no longer known, until cancelled."""
        if self._visits is not None:
            await self._visits.keep()

    @asynccontextmanager
    async def admitted(self, method: str, context: Any, *, streams: bool) -> AsyncIterator[None]:
        """Binds who calls; CallRefused where they may not, or have too many streams open."""
        if self._tokens is None or self._visits is None:
            with self.counted(ANONYMOUS.name) if streams else nullcontext():
                yield
            return
        try:
            entry = _authenticated(self._tokens, context)
        except CallRefused:
            structlog.contextvars.bind_contextvars(peer=context.peer())
            raise
        identity = entry.identity
        # To the end of the call, whose refusal is logged outside of this.
        structlog.contextvars.bind_contextvars(caller=identity.name)
        service = method.split("/")[1]
        if identity.roles.isdisjoint(ROLES.get(service, ())):
            roles = ", ".join(sorted(role.value for role in identity.roles))
            raise CallRefused(
                grpc.StatusCode.PERMISSION_DENIED,
                ErrorReason.WRONG_ROLE,
                f"{identity.name} is {roles}, which may not call {service}",
            )
        with self.counted(identity.name) if streams else nullcontext():
            async with self._visits.of(entry):
                yield

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """One more open stream of that name; CallRefused where there are too many."""
        if self._streams[name] >= self._max_streams:
            raise CallRefused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                ErrorReason.TOO_MANY_STREAMS,
                f"{self._max_streams} streams of this client are open already",
                retry_seconds=_STREAMS_RETRY_SECONDS,
            )
        self._streams[name] += 1
        try:
            yield
        finally:
            self._streams[name] -= 1
            if not self._streams[name]:
                del self._streams[name]


def _authenticated(tokens: TokenFile, context: Any) -> Entry:
    prove, what = _proof(context)
    entry = prove(tokens.entries())
    if entry is None and tokens.follow():
        entry = prove(tokens.entries())
    if entry is None:
        raise _unauthenticated(ErrorReason.CREDENTIALS_UNKNOWN, f"{what} is not known")
    if entry.has_expired():
        raise _unauthenticated(ErrorReason.CREDENTIALS_EXPIRED, f"{what} has expired")
    return entry


def _proof(context: Any) -> tuple[_Proof, str]:
    """What finds the entry of the token that a call brings, or else of its peer's certificate."""
    given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if given:
        return partial(_of_token, _bearer(given)), "the token"
    names = _certificate_names(context)
    if names:
        return partial(_of_certificate, names), "no token came, and the certificate"
    text = "a token is needed: authorization: Bearer TOKEN"
    raise _unauthenticated(ErrorReason.CREDENTIALS_MISSING, text)


def _bearer(values: list[Any]) -> str | None:
    """The token in the values of the header; None where they hold anything but one."""
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "bearer" or len(token) > _MAX_TOKEN:
        return None
    return token.strip()


def _of_token(token: str | None, entries: Entries) -> Entry | None:
    """Looks at all of them, so that the time it takes tells nothing."""
    if token is None:
        return None
    digest = token_digest(token)
    found = None
    for entry in entries:
        if entry.digest is not None and hmac.compare_digest(entry.digest, digest):
            found = entry
    return found


def _certificate_names(context: Any) -> frozenset[str]:
    """Of the peer's certificate, which TLS has verified; there is none where none was asked for."""
    shown = context.auth_context()
    keys = ("x509_common_name", "x509_subject_alternative_name")
    return frozenset(value.decode(errors="replace") for key in keys for value in shown.get(key, ()))


def _of_certificate(names: frozenset[str], entries: Entries) -> Entry | None:
    """The first entry for a name of it that has not expired, else one that has."""
    found = [entry for entry in entries if entry.certificate in names]
    return min(found, key=Entry.has_expired, default=None)


def _unauthenticated(reason: ErrorReason, text: str) -> CallRefused:
    return CallRefused(grpc.StatusCode.UNAUTHENTICATED, reason, text)
