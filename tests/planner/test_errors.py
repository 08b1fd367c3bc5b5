"""The status that a refusal travels as."""

from __future__ import annotations

import grpc
import pytest
from ditplan.v1 import planner_pb2
from google.rpc import error_details_pb2

from planner.diagnostics import Diagnostic, Severity
from planner.errors import (
    CallRefused,
    ErrorReason,
    Violation,
    invalid,
    invalid_config,
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
        Violation("config", "is no YAML"),
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


@pytest.mark.parametrize("size", [1, 40, 3000])
@pytest.mark.parametrize("text", ["x", "é", "\n"])
def test_each_fault_of_a_config_comes_as_violation_and_as_diagnostic(text: str, size: int) -> None:
    warning = Diagnostic(Severity.WARNING, "odd", "z", "is odd")
    errors = [
        Diagnostic(Severity.ERROR, "code", f"{i}", text * size, text * size, line=i, column=1)
        for i in range(1, 301)
    ]
    status = status_of(invalid_config([warning, *errors]))
    assert len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode()) < 8192
    bad, diagnostic = error_details_pb2.BadRequest(), planner_pb2.Diagnostic()
    found = [d.line for detail in status.details if detail.Unpack(diagnostic) for d in [diagnostic]]
    assert status.details[1].Unpack(bad)
    *listed, more = bad.field_violations
    assert [int(violation.field) for violation in listed] == found == [*range(1, len(found) + 1)]
    assert more.description == f"and {300 - len(found)} more faults"


def test_warnings_take_the_room_that_errors_leave() -> None:
    warning = Diagnostic(Severity.WARNING, "odd", "z", "is odd")
    error = Diagnostic(Severity.ERROR, "code", "a", "is wrong")
    status = status_of(invalid_config([warning, error]))
    diagnostic = planner_pb2.Diagnostic()
    codes = [diagnostic.code for detail in status.details if detail.Unpack(diagnostic)]
    assert codes == ["code", "odd"]


def test_a_refusal_has_one_reason_and_may_say_when_to_come_back() -> None:
    code, reason = grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorReason.QUEUE_FULL
    status = status_of(CallRefused(code, reason, "full", retry_seconds=1.5))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("QUEUE_FULL", "ditplan")
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 1500
    assert len(status.details) == 2
