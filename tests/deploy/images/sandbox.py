"""Processes of an image, as a cluster runs them: its user, no privileges, a read-only root."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.images.engine import Image

_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """``tmp``: what is writable, at /tmp; ``volumes``: read-only directories, by path there."""

    image: Image
    tmp: Path
    volumes: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        user, group = map(int, self.image.user.split(":"))
        self.tmp.mkdir(exist_ok=True)
        os.chown(self.tmp, user, group)
        # What a runtime does in its own layer; it brings /etc/hosts, too.
        for path in self.volumes:
            self._inside(path).mkdir(parents=True, exist_ok=True)
        self._inside("/etc/hosts").touch()

    def _inside(self, path: str) -> Path:
        return self.image.root / path.lstrip("/")

    def _command(self, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """Replaces itself by the command in the end, which thus gets the signals."""
        root, user = self.image.root, self.image.user
        steps = [["mount", "--bind", root, root]]
        for path in ("/dev", "/proc", "/sys", "/etc/hosts"):
            steps.append(["mount", "--rbind", path, self._inside(path)])
        steps.append(["mount", "--bind", self.tmp, self._inside("/tmp")])
        for path, source in self.volumes.items():
            steps.append(["mount", "--bind", source, self._inside(path)])
            steps.append(["mount", "-o", "remount,bind,ro", self._inside(path)])
        steps.append(["mount", "-o", "remount,bind,ro", root])
        # No capability is inherited by, or in reach of, what another user starts.
        enter = ["exec", "setpriv", "--no-new-privs", "--inh-caps=-all"]
        enter += ["chroot", f"--userspec={user}", "--groups=", root]
        enter += ["/usr/bin/env", "-i", f"--chdir={self.image.directory}"]
        enter += [f"{k}={v}" for k, v in {**self.image.environment, **environment}.items()]
        script = "\n".join(shlex.join(map(str, step)) for step in [*steps, [*enter, *command]])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]

    def run(
        self, *command: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        done = subprocess.run(
            self._command(command, environment),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @contextmanager
    def serving(self, log: Path, *command: str, **environment: str) -> Iterator[Process]:
        """A process that is to end soon after SIGTERM."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command(command, environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield Process(process, log)
            process.terminate()
            process.wait(_STOP_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@dataclass(frozen=True, slots=True)
class Process:
    """A running process; ``log`` is where it prints."""

    popen: subprocess.Popen[bytes]
    log: Path

    def require_running(self) -> None:
        assert self.popen.poll() is None, self.log.read_text(errors="replace")
