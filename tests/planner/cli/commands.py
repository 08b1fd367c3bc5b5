"""The command in a process of its own, beside a planner in this one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys


async def ditplan(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, off a terminal."""
    command = [sys.executable, "-m", "planner", *map(str, arguments)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**os.environ, "NO_COLOR": "1", **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return await asyncio.to_thread(run)
