"""The metadata of a forwarded call: the caller's, and in its name this side's own."""

from __future__ import annotations

from collections.abc import Iterable

from planner.access.forwarded import KEEPS_WORK, ON_BEHALF_OF

Pair = tuple[str, str | bytes]

_TRACEPARENT = "traceparent"
# Each connection's own, or not the caller's to say to another.
_NOT_FORWARDED = {"authorization", "user-agent", ON_BEHALF_OF, KEEPS_WORK}


def forwarded(
    received: Iterable[Pair],
    *,
    caller: str,
    credentials: Iterable[Pair],
    traceparent: str,
    keeps_work: bool,
) -> tuple[Pair, ...]:
    """What goes on to the planner that dispatches.

    ``caller`` "": nobody is asked who calls, and nobody is stated. ``traceparent``: of this side's
    span, which takes the place of the caller's; "": the caller's goes on.
    """
    left_out = _NOT_FORWARDED | ({_TRACEPARENT} if traceparent else set())
    pairs: list[Pair] = [
        (key, value)
        for key, value in received
        if key not in left_out and not key.startswith(("grpc-", ":"))
    ]
    pairs += credentials
    if caller:
        pairs.append((ON_BEHALF_OF, caller))
    if traceparent:
        pairs.append((_TRACEPARENT, traceparent))
    if keeps_work:
        pairs.append((KEEPS_WORK, "true"))
    return tuple(pairs)
