"""Between diagnostics and their messages."""

from __future__ import annotations

from collections.abc import Iterable

from ditplan.v1 import planner_pb2

from planner.diagnostics import Diagnostic, Severity

_SEVERITY = {
    severity: planner_pb2.Severity.Value(f"SEVERITY_{severity.name}") for severity in Severity
}
_FROM_SEVERITY = {value: severity for severity, value in _SEVERITY.items()}


def diagnostics_to_proto(diagnostics: Iterable[Diagnostic]) -> list[planner_pb2.Diagnostic]:
    return [
        planner_pb2.Diagnostic(
            severity=_SEVERITY[d.severity],
            code=d.code,
            field=d.field,
            line=d.line,
            column=d.column,
            message=d.message,
            hint=d.hint,
        )
        for d in diagnostics
    ]


def diagnostics_from_proto(messages: Iterable[planner_pb2.Diagnostic]) -> list[Diagnostic]:
    return [
        Diagnostic(
            severity=_FROM_SEVERITY[m.severity],
            code=m.code,
            field=m.field,
            message=m.message,
            hint=m.hint,
            line=m.line,
            column=m.column,
        )
        for m in messages
    ]
