"""What a check of one recorded case came to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


class NotSupportedError(Exception):
    """The case needs something that ditplan does not have yet."""


class MismatchError(AssertionError):
    """ditplan does something else than the record says."""


@dataclass(slots=True)
class Report:
    """The cases of one file."""

    name: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        return (
            f"{self.name}: {self.passed} passed, {len(self.failed)} failed, "
            f"{len(self.skipped)} not supported yet"
        )


def expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise MismatchError(f"{what}: got {got}, recorded {wanted}")


def judge(name: str, cases: Iterable[tuple[str, object]]) -> Report:
    """Runs every case: a name and a function without arguments."""
    report = Report(name)
    for case, check in cases:
        assert callable(check)
        try:
            check()
        except NotSupportedError as reason:
            report.skipped.append(f"{case}: {reason}")
        except Exception as error:
            report.failed.append(f"{case}: {type(error).__name__}: {error}")
        else:
            report.passed += 1
    return report
