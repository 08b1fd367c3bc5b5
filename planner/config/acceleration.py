"""An acceleration config as it was written, together with what was found wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.config.document import Document, Path
from planner.config.schema import CacheConfig, ParallelismConfig, QuantizeConfig
from planner.diagnostics import Diagnostic, Severity

_SECONDARY = ("cache_config", "secondary")


@dataclass(slots=True)
class AccelerationConfig:
    """The typed sections of a config; one that is absent is None.

    ``flat`` marks the legacy form, whose whole text is a ``cache_config``. ``variables`` names the
    environment variable that a value comes from, where it is not from the text. ``diagnostics``
    collects what loading and compiling find.
    """

    document: Document
    cache: CacheConfig | None = None
    parallelism: ParallelismConfig | None = None
    quantize: QuantizeConfig | None = None
    attention_backend: str = ""
    flat: bool = False
    variables: Mapping[Path, str] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    _secondary: bool = False

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
        """Adds a finding about the value (or key) at ``path``, with its place in the text.

        A value that an environment variable gave has no place: its field is the variable.
        """
        path = self._written(path)
        variable = self.variables.get(path)
        if variable is not None:
            key, _, value = hint.partition(": ")
            # What can be pasted into the file is to be exported instead.
            hint = f"{variable}={value}" if key == path[-1] else hint
            found = Diagnostic(severity, code, variable, message, hint)
        else:
            line, column = self._place(path, at_key=at_key)
            found = Diagnostic(severity, code, dotted(path), message, hint, line, column)
        # Transformers that share a config share what is wrong with it.
        if found not in self.diagnostics:
            self.diagnostics.append(found)

    def second(self) -> AccelerationConfig:
        """The config as a second transformer has it: what ``secondary`` gives goes first.

        Findings of both come together, each at the key that it is about.
        """
        if self.cache is None or self.cache.secondary is None:
            return self
        return replace(
            self, cache=self.cache.model_copy(update=self._secondary_values()), _secondary=True
        )

    def text_path(self, path: Path) -> Path:
        """Where in the text the value at ``path`` stands."""
        return path[1:] if self._is_flat(path) else path

    def place(self, path: Path) -> tuple[int, int]:
        """Line and column of the value at ``path``; zeros where the text does not have it."""
        place = self.document.places.get(self.text_path(path))
        return place.value if place else (0, 0)

    def _secondary_values(self) -> dict[str, object]:
        assert self.cache is not None
        second = self.cache.secondary
        return {} if second is None else {k: getattr(second, k) for k in second.model_fields_set}

    def _written(self, path: Path) -> Path:
        """Where the value at ``path`` is given."""
        second = self._secondary_values() if self._secondary else {}
        inside = path[:1] == _SECONDARY[:1] and len(path) > 1 and path[1] in second
        return (*_SECONDARY, *path[1:]) if inside else path

    def _place(self, path: Path, *, at_key: bool) -> tuple[int, int]:
        inner = self.text_path(path)
        while inner and inner not in self.document.places:
            inner = inner[:-1]
        # What the text does not hold (a field of the request) has no place in it.
        held = inner or not path or self._is_flat(path)
        place = self.document.places.get(inner) if held else None
        return (place.key if at_key else place.value) if place else (0, 0)

    def _is_flat(self, path: Path) -> bool:
        return self.flat and path[:1] == ("cache_config",)


def dotted(path: Path) -> str:
    """``("a", "b", 0)`` as ``a.b[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
