"""What is in an image, and what must not be."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

# Everybody may write there in any Debian; the root is read-only, /tmp is a volume.
_OF_EVERYBODY = {"tmp", "var/tmp", "run/lock"}
# Left by tools that fetch or build.
_EMPTY = ("tmp", "var/tmp", "mnt", "root/.cache", "var/cache", "var/lib/apt/lists", "run/secrets")
_ABSENT = ("build", "etc/pip.conf", "opt/ditplan/bin/pip")
LABELS = ("title", "description", "source", "licenses", "version", "revision")


def size(root: Path) -> int:
    """Bytes of all files; links to one file count once."""
    seen = {}
    for path in _files(root):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            seen[status.st_ino] = status.st_size
    return sum(seen.values())


def packages(root: Path) -> dict[str, str]:
    """Versions of the installed Python packages by their names."""
    found = {}
    for path in root.glob("opt/ditplan/lib/python3*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        found[name.lower().replace("_", "-")] = version
    return found


def problems(root: Path, user: int, private: Sequence[str]) -> list[str]:
    """``private``: hosts and directories that this image's packages were taken from."""
    found = [f"{path} is the user's to write" for path in _writable(root, user)]
    found += [f"/{path} is there" for path in _ABSENT if (root / path).exists()]
    for path in _EMPTY:
        if (root / path).is_dir() and (left := [item.name for item in (root / path).iterdir()]):
            found.append(f"/{path} holds {left}")
    for text in private:
        found += [f"{path} mentions {text}" for path in _mentions(root, text)]
        if text.startswith("/") and (root / text.lstrip("/")).exists():
            found.append(f"{text} is there")
    return found


def _files(root: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            yield Path(directory, name)


def _writable(root: Path, user: int) -> Iterator[str]:
    for path in _files(root):
        status, name = path.lstat(), str(path.relative_to(root))
        if stat.S_ISLNK(status.st_mode) or name in _OF_EVERYBODY:
            continue
        if user in (status.st_uid, status.st_gid) or status.st_mode & stat.S_IWOTH:
            yield f"/{name}"


def _mentions(root: Path, text: str) -> list[str]:
    command = ["grep", "--recursive", "--files-with-matches", "--fixed-strings", "--text", text]
    done = subprocess.run(
        [*command, "."], cwd=root, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode < 2, done.stderr
    return [line.removeprefix(".") for line in done.stdout.splitlines()]
