"""Where pip of this machine finds packages, for a build that knows no such place itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

# Where a build sees the one directory of wheels that this machine may have, and an authority.
WHEELS = "/mnt"
AUTHORITY = "/run/secrets/ca"
_PLACES = ("index-url", "extra-index-url", "find-links", "trusted-host")
_PUBLIC = {"pypi.org", "files.pythonhosted.org", "download.pytorch.org"}


@dataclass(frozen=True, slots=True)
class PipSettings:
    """``configuration``: a pip.conf for a build; ``private``: what no image may mention."""

    configuration: str
    wheels: Path | None
    authority: Path | None
    private: tuple[str, ...]


def pip_settings() -> PipSettings:
    """Those of pip on this machine; indexes that are directories are left out, PyPI has the same.

    Raises:
        ValueError: wheels lie in several directories.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    return parse(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def parse(listing: str) -> PipSettings:
    """``listing``: what `pip config list` prints, ``global.name='value'`` a line."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        # Sorted: `:env:` comes first, and wins as it does for pip.
        found.setdefault(key.rpartition(".")[2], ast.literal_eval(value))
    values = {name: found[name].split() for name in _PLACES if name in found}
    directories = {path for path in values.get("find-links", ()) if Path(path).is_dir()}
    if len(directories) > 1:
        raise ValueError(f"find-links of pip: one directory can be mounted, not {directories}")
    lines = ["[global]"]
    for name, places in values.items():
        taken = [WHEELS if place in directories else place for place in places]
        taken = [place for place in taken if not place.startswith("file:")]
        if taken:
            lines.append(f"{name} = {' '.join(taken)}")
    if "default-timeout" in found:
        lines.append(f"timeout = {found['default-timeout']}")
    authority = Path(found["cert"]) if "cert" in found else None
    if authority:
        lines.append(f"cert = {AUTHORITY}")
    named = {_named(place) for places in values.values() for place in places}
    return PipSettings(
        configuration="\n".join(lines) + "\n",
        wheels=Path(directories.pop()) if directories else None,
        authority=authority,
        private=tuple(sorted(named - _PUBLIC)),
    )


def _named(place: str) -> str:
    """The host of an index, or the directory that it is."""
    url = urlsplit(place)
    return url.hostname or url.path
