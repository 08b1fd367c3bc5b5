"""How the ranks of an executor find each other: through the store of their launcher."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

import torch.distributed as dist
from ditplan.runtime.v1.runtime_pb2 import Join, Report
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from executor.runtime.failures import ExecutorFailedError
from executor.runtime.line import limit_waits
from executor.runtime.seat import Seat

JOIN_SECONDS = 300.0
HANDSHAKE_SECONDS = 5.0
RETRY_SECONDS = 0.1
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Process:
    """Where a rank runs."""

    pid: int
    host: str

    @classmethod
    def here(cls) -> Process:
        return cls(os.getpid(), socket.gethostname())

    def kill(self) -> None:
        """Ends a stopped process of this host, which no SIGTERM reaches; launchers wait for it."""
        if self.host == socket.gethostname():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def open_store(seat: Seat) -> Store:
    """The launcher's store, below a prefix that only this executor uses."""
    store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
    return PrefixStore(f"executor-{seat.group}", store)


def await_joins(store: Store, seat: Seat) -> dict[int, tuple[Connection, Process]]:
    """Rank 0's side: waits for the connections of all others.

    Raises:
        ExecutorFailedError: one did not come.
    """
    joined: dict[int, tuple[Connection, Process]] = {}
    here = Process.here()
    key = secrets.token_bytes(KEY_BYTES)
    deadline = time.monotonic() + JOIN_SECONDS
    with socket.create_server((_own_address(), 0)) as server:
        host, port = server.getsockname()[:2]
        store.set("control", json.dumps([host, port, key.hex(), here.pid, here.host]))
        while len(joined) < seat.size - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                accepted, _ = server.accept()
                accepted.setblocking(True)
                connection = Connection(accepted.detach())
                limit_waits(connection, HANDSHAKE_SECONDS)
                deliver_challenge(connection, key)
                answer_challenge(connection, key)
                join = Report.FromString(connection.recv_bytes()).join
            except TimeoutError:
                missing = sorted(set(range(1, seat.size)) - joined.keys())
                raise ExecutorFailedError(
                    f"rank {missing[0]} did not come within {JOIN_SECONDS:g} s"
                ) from None
            except (OSError, EOFError, AuthenticationError):
                # Not one of ours, or one that has died: it will come again.
                continue
            joined[join.rank] = connection, Process(join.pid, join.host)
    return joined


def join(store: Store, seat: Seat) -> tuple[Connection, Process]:
    """The others' side: connects to rank 0; the process is rank 0's.

    Raises:
        ExecutorFailedError: it cannot be reached.
    """
    here = Process.here()
    mine = Join(rank=seat.rank, pid=here.pid, host=here.host)
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            # After a restart the address may be that of the processes before.
            host, port, key, *leader = json.loads(store.get("control"))
            connection = _connect(host, port, bytes.fromhex(key))
            connection.send_bytes(Report(join=mine).SerializeToString())
            return connection, Process(*leader)
        except (OSError, EOFError, AuthenticationError, dist.DistError) as error:
            if time.monotonic() > deadline:
                raise ExecutorFailedError(f"rank 0 cannot be reached: {error}") from error
        time.sleep(RETRY_SECONDS)


def _connect(host: str, port: int, key: bytes) -> Connection:
    with socket.create_connection((host, port), timeout=HANDSHAKE_SECONDS) as dialled:
        dialled.setblocking(True)
        connection: Connection = Connection(dialled.detach())
    limit_waits(connection, HANDSHAKE_SECONDS)
    answer_challenge(connection, key)
    deliver_challenge(connection, key)
    return connection


def _own_address() -> str:
    """The address by which this host reaches the store, and so the others this host."""
    store = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    with socket.create_connection(store, timeout=HANDSHAKE_SECONDS) as probe:
        return str(probe.getsockname()[0])
