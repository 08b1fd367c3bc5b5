"""The status that a refusal travels as."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from planner.diagnostics import Diagnostic, Severity
from planner.errors import (
    CallRefused,
    ErrorReason,
    Violation,
    invalid,
    status_of,
    violations_of,
)


def test_errors_of_a_config_keep_their_place_and_hint() -> None:
    diagnostics = [
        Diagnostic(Severity.ERROR, "code", "a.b", "is wrong", "write c", line=2, column=3),
        Diagnostic(Severity.WARNING, "code", "a", "is odd"),
        Diagnostic(Severity.ERROR, "code", "", "is no YAML"),
    ]
    assert violations_of(diagnostics) == [
        Violation("a.b", "line 2, column 3: is wrong (write c)"),
        Violation("", "is no YAML"),
    ]


@pytest.mark.parametrize("text", ["x", "é", "字", "\n", "\x1b"])
def test_no_status_outgrows_what_clients_accept(text: str) -> None:
    violations = [Violation(text * 300, text * 3000) for _ in range(300)]
    status = status_of(invalid(violations))
    assert len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode()) < 8192
    assert status.message.isprintable()
    bad = error_details_pb2.BadRequest()
    assert [detail.Unpack(bad) for detail in status.details] == [False, True]
    listed = len(bad.field_violations) - 1
    assert bad.field_violations[-1].description == f"and {300 - listed} more faults"


def test_a_refusal_has_one_reason_and_may_say_when_to_come_back() -> None:
    code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.QUEUE_FULL
    status = status_of(CallRefused(code, reason, "full", retry_seconds=1.5))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("QUEUE_FULL", "ditplan")
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert len(status.details) == 2
