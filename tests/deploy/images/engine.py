"""Images made and looked into without a Docker engine: buildah in a store of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.images.pip_settings import WHEELS, PipSettings

REPOSITORY = Path(__file__).parents[3]
DOCKERFILES = REPOSITORY / "deploy" / "images"
BASE = "localhost/ditplan/base"
_SUITE = "bookworm"
# Of the machine that debootstrap runs on, or worth nothing in an image.
_NOT_OF_A_BASE = ("etc/hostname", "etc/resolv.conf", "var/cache/apt", "var/lib/apt/lists")


class EngineError(Exception):
    """A tool is missing or failed; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image's files, and how its processes are to be started."""

    root: Path
    user: str
    directory: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]


def _require(tool: str) -> None:
    if shutil.which(tool) is None:
        raise EngineError(f"{tool} is not installed")


class Engine:
    """``work`` holds the store and the logs of builds."""

    def __init__(self, work: Path) -> None:
        if os.geteuid() != 0:
            raise EngineError("building and entering images needs root")
        for tool in ("buildah", "unshare", "chroot", "setpriv"):
            _require(tool)
        self._work = work
        work.mkdir(parents=True, exist_ok=True)

    def _buildah(self, *arguments: str | Path) -> str:
        store = ["--root", str(self._work / "store"), "--runroot", str(self._work / "run")]
        command = ["buildah", *store, "--storage-driver", "vfs", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        (self._work / "last.log").write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise EngineError(f"buildah {arguments[0]} failed:\n{end}")
        return done.stdout.strip()

    def make_base(self) -> str:
        """A plain Debian, made once; its name."""
        if BASE in self._buildah("images", "--format", "{{.Name}}").split():
            return BASE
        _require("debootstrap")
        with tempfile.TemporaryDirectory(dir=self._work) as directory:
            root = Path(directory) / "root"
            command = ["debootstrap", "--variant=minbase", _SUITE, str(root)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise EngineError(f"debootstrap failed:\n{done.stdout[-2000:]}{done.stderr}")
            for path in _NOT_OF_A_BASE:
                subprocess.run(["rm", "-rf", str(root / path)], check=True)
            for device in (root / "dev").iterdir():
                subprocess.run(["rm", "-rf", str(device)], check=True)
            container = self._buildah("from", "scratch")
            self._buildah("copy", "--quiet", container, root, "/")
        self._buildah("commit", "--quiet", container, BASE)
        self._buildah("rm", container)
        return BASE

    def build(
        self, name: str, dockerfile: str, pip: PipSettings, arguments: Mapping[str, str], epoch: int
    ) -> float:
        """Builds an image as of ``epoch``, seconds since 1970; how long it took."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self._work) as directory:
            settings = Path(directory) / "pip.conf"
            settings.write_text(pip.configuration)
            options = ["--secret", f"id=pip,src={settings}"]
            if pip.authority:
                options += ["--secret", f"id=ca,src={pip.authority}"]
            if pip.wheels:
                options += ["--volume", f"{pip.wheels}:{WHEELS}:ro"]
            for key, value in {**arguments, "SOURCE_DATE_EPOCH": str(epoch)}.items():
                options += ["--build-arg", f"{key}={value}"]
            options += ["--isolation", "chroot", "--timestamp", str(epoch), "--tag", name]
            self._buildah("bud", *options, "--file", DOCKERFILES / dockerfile, REPOSITORY)
        self._buildah("rmi", "--prune")
        return time.monotonic() - start

    @contextmanager
    def opened(self, name: str) -> Iterator[Image]:
        """A container's copy of the image, removed afterwards."""
        container = self._buildah("from", "--pull-never", name)
        try:
            config = json.loads(self._buildah("inspect", container))["OCIv1"]["config"]
            yield Image(
                root=Path(self._buildah("mount", container)),
                user=config.get("User", ""),
                directory=config.get("WorkingDir", "/"),
                environment=dict(item.split("=", 1) for item in config.get("Env", ())),
                labels=config.get("Labels", {}),
            )
        finally:
            self._buildah("rm", container)
