"""Who gets in: every call is authenticated, authorised and counted before it is parsed."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any

import grpc
import structlog

from planner.access.forwarded import ON_BEHALF_OF
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
    "ditplan.dispatch.v1.FrontService": frozenset({Role.FRONT}),
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
            if _values(context, ON_BEHALF_OF):
                raise _wrong_role("who shows no credentials may not call on behalf of others")
            with self.counted(ANONYMOUS.name) if streams else nullcontext():
                yield
            return
        try:
            proven = _authenticated(self._tokens, context)
            entry = _on_behalf(self._tokens, proven, context)
        except CallRefused:
            structlog.contextvars.bind_contextvars(peer=context.peer())
            raise
        identity = entry.identity
        # To the end of the call, whose refusal is logged outside of this.
        structlog.contextvars.bind_contextvars(caller=identity.name)
        service = method.split("/")[1]
        if identity.roles.isdisjoint(ROLES.get(service, ())):
            text = f"{identity.name} is {_roles(entry)}, which may not call {service}"
            raise _wrong_role(text)
        with self.counted(identity.name) if streams else nullcontext():
            async with AsyncExitStack() as visits:
                # The one that is bound last is who calls.
                for each in dict.fromkeys((proven, entry)):
                    await visits.enter_async_context(self._visits.of(each))
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
    return _known(tokens, *_proof(context))


def _on_behalf(tokens: TokenFile, proven: Entry, context: Any) -> Entry:
    """Of whom a front calls for: it states a name only, and this side's entries say the rest."""
    stated = _values(context, ON_BEHALF_OF)
    if not stated:
        return proven
    front = proven.identity
    if Role.FRONT not in front.roles:
        raise _wrong_role(f"{front.name} may not call on behalf of others")
    structlog.contextvars.bind_contextvars(front=front.name)
    name = stated[0]
    if len(stated) != 1 or not isinstance(name, str):
        raise _wrong_role(f"{front.name} may call on behalf of one identity")
    found = _known(tokens, partial(_of_name, name), f"{name}, called for,")
    if found.identity.roles.isdisjoint(_CLIENTS):
        raise _wrong_role(f"{name} is {_roles(found)}, for whom no front may call")
    return found


def _known(tokens: TokenFile, prove: _Proof, what: str) -> Entry:
    """The entry that it proves, also one that was added just now."""
    entry = prove(tokens.entries())
    if entry is None and tokens.follow():
        entry = prove(tokens.entries())
    if entry is None:
        raise _unauthenticated(ErrorReason.CREDENTIALS_UNKNOWN, f"{what} is not known")
    if entry.has_expired():
        raise _unauthenticated(ErrorReason.CREDENTIALS_EXPIRED, f"{what} has expired")
    return entry


def _values(context: Any, name: str) -> list[Any]:
    return [value for key, value in context.invocation_metadata() or () if key == name]


def _proof(context: Any) -> tuple[_Proof, str]:
    """What finds the entry of the token that a call brings, or else of its peer's certificate."""
    given = _values(context, "authorization")
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
    return _freshest(entry for entry in entries if entry.certificate in names)


def _of_name(name: str, entries: Entries) -> Entry | None:
    return _freshest(entry for entry in entries if entry.identity.name == name)


def _freshest(entries: Iterable[Entry]) -> Entry | None:
    """The first that has not expired, else one that has."""
    return min(entries, key=Entry.has_expired, default=None)


def _roles(entry: Entry) -> str:
    return ", ".join(sorted(role.value for role in entry.identity.roles))


def _wrong_role(text: str) -> CallRefused:
    return CallRefused(grpc.StatusCode.PERMISSION_DENIED, ErrorReason.WRONG_ROLE, text)


def _unauthenticated(reason: ErrorReason, text: str) -> CallRefused:
    return CallRefused(grpc.StatusCode.UNAUTHENTICATED, reason, text)
