"""An acceleration config as it was written, together with what was found wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from planner.config.document import Document, Path
from planner.config.schema import CacheConfig, ParallelismConfig, QuantizeConfig
from planner.diagnostics import Diagnostic, Severity


@dataclass(slots=True)
class AccelerationConfig:
    """The typed sections of a config; one that is absent is None.

    ``flat`` marks the legacy form, whose whole text is a ``cache_config``. ``diagnostics``
    collects what loading and compiling find.
    """

    document: Document
    cache: CacheConfig | None = None
    parallelism: ParallelismConfig | None = None
    quantize: QuantizeConfig | None = None
    attention_backend: str = ""
    flat: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def report(
        self,
        severity: Severity,
        code: str,
        path: Path,
        message: str,
        hint: str = "",
        *,
        at_key: bool = False,
    ) -> None:
        """Adds a finding about the value (or key) at ``path``, with its place in the text."""
        inner = self.text_path(path)
        while inner and inner not in self.document.places:
            inner = inner[:-1]
        # What the text does not hold (a field of the request) has no place in it.
        held = inner or not path or self._is_flat(path)
        place = self.document.places.get(inner) if held else None
        line, column = (place.key if at_key else place.value) if place else (0, 0)
        self.diagnostics.append(
            Diagnostic(severity, code, dotted(path), message, hint, line, column)
        )

    def text_path(self, path: Path) -> Path:
        """Where in the text the value at ``path`` stands."""
        return path[1:] if self._is_flat(path) else path

    def _is_flat(self, path: Path) -> bool:
        return self.flat and path[:1] == ("cache_config",)


def dotted(path: Path) -> str:
    """``("a", "b", 0)`` as ``a.b[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
