"""How fast commands and servers are up, and what they need for it, beside others in Python."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.calls import SERVE
from tests.bench.inputs import CONFIG, FLUX
from tests.bench.report import Claim, Figure, Table
from tests.e2e.processes import ENVIRONMENT, Service

# The peak is this process' own, as its children's would count what forked them.
_LOOKING = """\
import sys
try:
    {code}
except SystemExit:
    pass
[peak] = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak, "torch" in sys.modules, file=sys.stderr)
"""
PREVIEW = "from planner.cli import main; main()"
COMMANDS = {
    "ditplan preview": (PREVIEW, ("preview", str(CONFIG), "--model", FLUX)),
    "python -c pass": ("pass", ()),
    "python -c 'import torch'": ("import torch", ()),
}


def commands(*, rounds: int) -> tuple[Table, Claim]:
    """From exec to the end of the process."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    peaks: dict[str, list[float]] = {name: [] for name in COMMANDS}
    has_torch = {}
    for _ in range(rounds):
        for name, (code, arguments) in COMMANDS.items():
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", _LOOKING.format(code=code), *arguments],
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                check=True,
            )
            times[name].append((time.perf_counter() - began) * 1e3)
            peak, torch = done.stderr.split()[-2:]
            peaks[name].append(int(peak) / 1024)
            has_torch[name] = torch == "True"
    rows = tuple(
        (
            name,
            Figure.of(times[name], ".0f"),
            Figure.of(peaks[name], ".0f"),
            "yes" if has_torch[name] else "no",
        )
        for name in COMMANDS
    )
    [ours, _, torch_alone] = (statistics.median(found) for found in times.values())
    claim = Claim(
        "`ditplan preview`, from exec to its end",
        Figure(ours, ".0f", " ms"),
        Figure(torch_alone, ".0f", " ms"),
        "importing torch, which it does not",
    )
    table = Table("Commands", ("", "ms", "peak MiB", "imports torch"), rows)
    return table, claim


def servers(*, rounds: int) -> tuple[Table, Claim]:
    """From exec to health SERVING."""
    planners, echoes = [], []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "answer").write_bytes(b"")
        for turn in range(rounds):
            planners.append(_until_serving(*SERVE, "--data", f"{name}/{turn}"))
            echoes.append(_until_serving("-m", "tests.bench.echo", f"{name}/answer"))
    rows = (
        ("ditplan serve planner", Figure.of(planners, ".0f")),
        ("bare echo", Figure.of(echoes, ".0f")),
    )
    claim = Claim(
        "`ditplan serve planner`, from exec to SERVING",
        Figure(statistics.median(planners), ".0f", " ms"),
        Figure(statistics.median(echoes), ".0f", " ms"),
        "a bare gRPC echo in Python",
    )
    return Table("Servers, from exec to health SERVING", ("", "ms"), rows), claim


def _until_serving(*arguments: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        service = Service(Path(name), "started", *arguments)
        try:
            # A channel that dials too early waits for a second before it dials again.
            while not _listens(service.address):
                assert service.process.poll() is None, service.log
                time.sleep(0.002)
            service.await_ready()
            return (time.perf_counter() - began) * 1e3
        finally:
            service.kill()


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
