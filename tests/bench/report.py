"""What benches find, as values that can be stored, printed and drawn."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as it is shown: ``form`` is its format, ``unit`` what stands right behind it.

    ``low`` and ``high`` are quartiles, where the number is a median.
    """

    value: float
    form: str = ".2f"
    unit: str = ""
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Sequence[float], form: str = ".2f", unit: str = "") -> Figure:
        """The median of several numbers with their quartiles; one number stands for itself."""
        if len(values) < 2:
            return cls(*values, form, unit)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, form, unit, low, high)

    def __str__(self) -> str:
        return f"{self.median} ({self.spread})" if self.spread else self.median

    @property
    def median(self) -> str:
        return f"{self.value:{self.form}}{self.unit}"

    @property
    def spread(self) -> str:
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:{self.form}} to {self.high:{self.form}}"


Cell = Figure | str


@dataclass(frozen=True, slots=True)
class Table:
    """``rows``: a cell for every heading; the first says what the row is."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind in a plot; ``names``, if any, stand beside them.

    Series of one ``label`` share a colour, those of one ``kind`` a marker.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    names: tuple[str, ...] = ()
    kind: str = ""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """``name`` is that of its file; ``says``: one sentence on what the curve shows."""

    name: str
    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    says: str
    log: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A line of the summary: what ditplan has, what stands beside it, and what that is."""

    what: str
    ours: Cell
    other: Cell = ""
    than: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a part found; ``method``: how, in a few sentences."""

    title: str
    method: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """Findings with where and when they were made."""

    findings: Findings
    machine: str
    versions: str
    date: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """Parts by their names."""

    parts: dict[str, Part] = field(default_factory=dict)
