"""The manifests, rehearsed: their pods as processes on hosts of their own, without a cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.deploy.rehearsal.cluster import REPOSITORY
from tests.deploy.rehearsal.scenarios import SCENARIOS

_NAMESPACES = ("--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")


def _missing() -> str:
    """What keeps this machine from having hosts of its own."""
    for tool in ("kubectl", "ip", "unshare", "setpriv"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    probe = "mount -t tmpfs tmpfs /mnt && ip link add probe type bridge"
    done = subprocess.run(["unshare", *_NAMESPACES, "sh", "-c", probe], capture_output=True)
    return "" if done.returncode == 0 else "namespaces need root and a kernel that has them"


_MISSING = _missing()
# All of them take minutes: `make rehearse`.
_QUICK = ["rollout"]


@pytest.mark.timeout(400)
@pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "all is here")
@pytest.mark.parametrize("name", SCENARIOS if "DITPLAN_REHEARSE" in os.environ else _QUICK)
def test_nothing_is_lost(name: str) -> None:
    done = subprocess.run(
        ["unshare", *_NAMESPACES, sys.executable, "-m", "tests.deploy.rehearsal", name],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}"},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-6000:]
