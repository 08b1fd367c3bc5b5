"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """``remedy``: what to do about it; empty where there is nothing to do."""

    check: str
    verdict: Verdict
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    return Finding(check, Verdict.OK, message)


def warning(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Verdict.WARNING, message, remedy)


def failed(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Verdict.FAILED, message, remedy)


def skipped(check: str, message: str, remedy: str = "") -> Finding:
    return Finding(check, Verdict.SKIPPED, message, remedy)
