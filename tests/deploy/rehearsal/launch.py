"""Becomes a container: its root, mounts, user and nothing else, then its command.

Run as root in mount and PID namespaces of its own, with a file that says what to become. It knows
no ditplan, as a container runtime knows none.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

# What stands for the image: the programs of this machine, read-only.
_SHOWN = ("bin", "lib", "lib64", "opt", "sbin", "usr")
_OF_ETC = ("group", "ld.so.cache", "localtime", "nsswitch.conf", "passwd", "ssl")


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    root = Path(spec["root"])
    socket.sethostname(spec["hostname"])
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", root)
    for name in _SHOWN:
        source = Path("/", name)
        if source.is_symlink():
            (root / name).symlink_to(os.readlink(source))
        elif source.exists():
            _show(source, root / name)
    (root / "etc").mkdir()
    for name in _OF_ETC:
        source = Path("/etc", name)
        if source.is_dir():
            _show(source, root / "etc" / name)
        elif source.exists():
            shutil.copy(source, root / "etc" / name)
    (root / "etc/hosts").touch()
    _mount("--bind", spec["hosts"], root / "etc/hosts")
    for name in ("dev", "sys"):
        (root / name).mkdir()
        _mount("--rbind", f"/{name}", root / name)
    (root / "proc").mkdir()
    _mount("-t", "proc", "proc", root / "proc")
    for source, path, read_only in spec["mounts"]:
        inside = root / path.lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        _mount("--bind", source, inside)
        if read_only:
            _mount("-o", "remount,bind,ro", inside)
    # Last: on this machine they may be where a pod mounts something, as below /tmp.
    for name in spec["shown"]:
        _show(Path(name), root / name.lstrip("/"))
    if spec["read_only_root"]:
        _mount("-o", "remount,ro", root)
    os.chroot(root)
    os.chdir("/")
    privileges = ["--reuid", str(spec["user"]), "--regid", str(spec["group"]), "--clear-groups"]
    privileges += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    setpriv = ["/usr/bin/setpriv", *privileges, "--", *spec["command"]]
    os.execve(setpriv[0], setpriv, spec["environment"])


def _show(source: Path, inside: Path) -> None:
    inside.mkdir(parents=True, exist_ok=True)
    _mount("--rbind", source, inside)
    _mount("-o", "remount,bind,ro", inside)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["/usr/bin/mount", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
