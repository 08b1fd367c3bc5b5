"""What a call can be refused with, and how that travels: ``google.rpc.Status`` in trailers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
from ditplan.v1 import planner_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from planner.codec import diagnostics_to_proto
from planner.diagnostics import Diagnostic, Severity

DOMAIN = "ditplan"
DETAILS_KEY = "grpc-status-details-bin"

# Space comes back with what is forgotten, or with an operator.
_STORAGE_RETRY_SECONDS = 10.0
# Clients accept 8 KiB of trailers by default, and bytes travel in base64.
_MAX_MESSAGE = 600
_MAX_FAULTS = 3600
# Of an Any beside what it holds: its type's name, tags and lengths.
_ANY_BYTES = 60


class ErrorReason(Enum):
    """``ErrorInfo.reason``: stable names for programs to act on."""

    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_CONFIG = "INVALID_CONFIG"
    UNKNOWN_MODEL = "UNKNOWN_MODEL"
    UNKNOWN_GENERATION = "UNKNOWN_GENERATION"
    UNKNOWN_ARTIFACT = "UNKNOWN_ARTIFACT"
    NO_MATCHING_EXECUTOR = "NO_MATCHING_EXECUTOR"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    EXECUTOR_NAME_IN_USE = "EXECUTOR_NAME_IN_USE"
    QUEUE_FULL = "QUEUE_FULL"
    ARTIFACTS_TOO_LARGE = "ARTIFACTS_TOO_LARGE"
    OFFSET_OUT_OF_RANGE = "OFFSET_OUT_OF_RANGE"
    STALE_LEASE = "STALE_LEASE"
    INVALID_REPORT = "INVALID_REPORT"
    STORAGE_FULL = "STORAGE_FULL"
    ANSWER_FULL = "ANSWER_FULL"
    CREDENTIALS_MISSING = "CREDENTIALS_MISSING"
    CREDENTIALS_UNKNOWN = "CREDENTIALS_UNKNOWN"
    CREDENTIALS_EXPIRED = "CREDENTIALS_EXPIRED"
    CREDENTIALS_REVOKED = "CREDENTIALS_REVOKED"
    WRONG_ROLE = "WRONG_ROLE"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    STREAM_STALLED = "STREAM_STALLED"
    STOPPING = "STOPPING"
    DISPATCH_UNREACHABLE = "DISPATCH_UNREACHABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request that the caller can fix, at a field path."""

    field: str
    description: str


class CallRefused(Exception):
    """Ends a call with this status. ``retry_seconds`` says when another try could succeed.

    ``diagnostics`` are those of a config; ``violations`` then are its errors, in their order.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: ErrorReason,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        diagnostics: Sequence[Diagnostic] = (),
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = tuple(violations)
        self.diagnostics = tuple(diagnostics)
        self.retry_seconds = retry_seconds


def invalid(
    violations: Sequence[Violation],
    reason: ErrorReason = ErrorReason.INVALID_REQUEST,
    diagnostics: Sequence[Diagnostic] = (),
) -> CallRefused:
    """INVALID_ARGUMENT with every fault of the request."""
    first = violations[0]
    place = f"{first.field}: " if first.field else ""
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return CallRefused(
        grpc.StatusCode.INVALID_ARGUMENT,
        reason,
        f"{place}{first.description}{more}",
        violations=violations,
        diagnostics=diagnostics,
    )


def invalid_config(diagnostics: Sequence[Diagnostic]) -> CallRefused:
    """INVALID_ARGUMENT with every error among the diagnostics, of which there is one."""
    return invalid(violations_of(diagnostics), ErrorReason.INVALID_CONFIG, diagnostics)


def storage_full(why: str) -> CallRefused:
    """RESOURCE_EXHAUSTED for what cannot be stored now."""
    return CallRefused(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorReason.STORAGE_FULL,
        f"the planner cannot store this now: {why}",
        retry_seconds=_STORAGE_RETRY_SECONDS,
    )


def internal() -> CallRefused:
    """INTERNAL for what only the log may tell."""
    text = "internal error; the planner's log has it"
    return CallRefused(grpc.StatusCode.INTERNAL, ErrorReason.INTERNAL, text)


def violations_of(diagnostics: Iterable[Diagnostic]) -> list[Violation]:
    """The errors among the diagnostics of a config, each with its place and hint."""
    return [
        Violation(
            # What is wrong with a config as a whole has no path in it.
            d.field or "config",
            (f"line {d.line}, column {d.column}: " if d.line else "")
            + d.message
            + (f" ({d.hint})" if d.hint else ""),
        )
        for d in diagnostics
        if d.severity is Severity.ERROR
    ]


def status_of(refused: CallRefused) -> status_pb2.Status:
    """The status with its details, cut so that a client with default limits can receive it."""
    status = status_pb2.Status(
        code=refused.code.value[0], message=_cut(_printable(refused.message), _MAX_MESSAGE)
    )
    _attach(status, error_details_pb2.ErrorInfo(reason=refused.reason.value, domain=DOMAIN))
    if refused.retry_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(refused.retry_seconds * 1000))
        _attach(status, retry)
    _attach_faults(status, refused)
    return status


def _attach_faults(status: status_pb2.Status, refused: CallRefused) -> None:
    """As many faults as there is room for, each of a config's as violation and as diagnostic.

    Errors go first; warnings and hints take what they leave.
    """
    errors = [d for d in refused.diagnostics if d.severity is Severity.ERROR]
    others = [d for d in refused.diagnostics if d.severity is not Severity.ERROR]
    listed, found = error_details_pb2.BadRequest(), []
    room = _MAX_FAULTS
    for count, violation in enumerate(refused.violations):
        fault = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, 200), description=_cut(violation.description, 1000)
        )
        also = [_short(d) for d in errors[count : count + 1]]
        room -= fault.ByteSize() + sum(d.ByteSize() + _ANY_BYTES for d in also)
        if room < 0:
            more = f"and {len(refused.violations) - count} more faults"
            listed.field_violations.add(description=more)
            break
        listed.field_violations.append(fault)
        found += also
    for message in map(_short, others):
        room -= message.ByteSize() + _ANY_BYTES
        if room < 0:
            break
        found.append(message)
    if listed.field_violations:
        _attach(status, listed)
    for message in found:
        _attach(status, message)


def _short(diagnostic: Diagnostic) -> planner_pb2.Diagnostic:
    [message] = diagnostics_to_proto([diagnostic])
    message.field = _cut(message.field, 200)
    message.message = _cut(message.message, 1000)
    message.hint = _cut(message.hint, 400)
    return message


def _attach(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _printable(text: str) -> str:
    """Trailers carry the message percent-encoded; control characters would only hide in it."""
    return "".join(c if c.isprintable() else " " for c in text)


def _cut(text: str, length: int) -> str:
    """At most ``length`` bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    if len(data) <= length:
        return text
    return data[: length - 3].decode("utf-8", "ignore") + "…"
