"""A planner and executors as processes that are started anew whenever they end."""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path

from tests.e2e.processes import Service, free_address

FAULTS = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGSTOP,
    "end": signal.SIGTERM,
}
RESTART_SECONDS = (0.0, 0.5)
STOPPED_SECONDS = (0.3, 6.0)


class Member:
    """One process of the fleet, by name."""

    def __init__(self, name: str, directory: Path, *arguments: str) -> None:
        self.name = name
        self._directory = directory
        self._arguments = arguments
        self._address = free_address()
        self.starts = 0
        self.service = self._start()

    def _start(self) -> Service:
        self.starts += 1
        return Service(self._directory, self.name, *self._arguments, address=self._address)

    @property
    def address(self) -> str:
        return self._address

    @property
    def is_alive(self) -> bool:
        return self.service.process.poll() is None

    def restart(self) -> None:
        self.service = self._start()

    def signal(self, number: int) -> None:
        if self.is_alive:
            self.service.process.send_signal(number)


class Fleet:
    """A planner and ``executors`` of a model, with a thread that starts what has ended."""

    def __init__(self, directory: Path, model: Path, executors: int, chance: random.Random) -> None:
        self._chance = chance
        self._over = threading.Event()
        planner = ("-m", "planner", "serve", "planner", "--data", str(directory / "data"))
        planner += ("--model-root", str(model))
        self.planner = Member("planner", directory, *planner)
        execute = ("-m", "executor", "--planner", self.planner.address, "--model", str(model))
        execute += ("--drain-seconds", "5")
        self.executors = [
            Member(f"executor-{i}", directory, *execute, "--name", f"executor-{i}")
            for i in range(executors)
        ]
        self._keeper = threading.Thread(target=self._keep, name="keeper")
        self._keeper.start()

    @property
    def members(self) -> list[Member]:
        return [self.planner, *self.executors]

    def strike(self, *, at_planner: float) -> str:
        """One fault on one member; what it was. The planner is struck with that chance."""
        struck = self.planner
        if self._chance.random() >= at_planner:
            struck = self._chance.choice(self.executors)
        kind = self._chance.choice(list(FAULTS))
        struck.signal(FAULTS[kind])
        if kind == "stop":
            seconds = self._chance.uniform(*STOPPED_SECONDS)
            threading.Timer(seconds, struck.signal, (signal.SIGCONT,)).start()
        return f"{kind} {struck.name.partition('-')[0]}"

    def _keep(self) -> None:
        while not self._over.wait(0.05):
            for member in self.members:
                if not member.is_alive:
                    time.sleep(self._chance.uniform(*RESTART_SECONDS))
                    if not self._over.is_set():
                        member.restart()

    def end(self) -> None:
        """Ends all processes; raises AssertionError where one has to be killed."""
        self._over.set()
        self._keeper.join()
        for member in reversed(self.members):
            member.signal(signal.SIGCONT)
            member.signal(signal.SIGTERM)
        for member in self.members:
            member.service.process.wait(30)
