"""Whether an address can be dialled at all, below gRPC."""

from __future__ import annotations

import os
import queue
import re
import socket
import threading
import time
from dataclasses import dataclass

from planner.cli.checkup.finding import Finding, failed, ok

CONNECT_SECONDS = 3.0
_RESOLVE_SECONDS = 5.0
_MAX_HOSTS = 3
_SCHEME = re.compile(r"(?:ipv4|ipv6|dns):(?://[^/]*/)?")
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where sockets go: a host and its port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def open(self, seconds: float = CONNECT_SECONDS) -> socket.socket:
        """A connection; OSError where there is none within the bound (for each of few hosts)."""
        if self.path:
            opened = socket.socket(socket.AF_UNIX)
            opened.settimeout(seconds)
            try:
                opened.connect(self.path)
            except BaseException:
                opened.close()
                raise
            return opened
        error: OSError = OSError(f"{self.host} has no address")
        for host in _resolved(self.host, self.port)[:_MAX_HOSTS]:
            try:
                return socket.create_connection((host, self.port), seconds)
            except OSError as tried:
                error = tried
        raise error


def endpoint(address: str) -> Endpoint | None:
    """Of an address as gRPC takes it; None where it is none."""
    if address.startswith("unix-abstract:"):
        return Endpoint(path="\0" + address.removeprefix("unix-abstract:"))
    if address.startswith("unix:"):
        return Endpoint(path=address.removeprefix("unix:").removeprefix("//"))
    host, _, port = _SCHEME.sub("", address).rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return None
    return Endpoint(host.removeprefix("[").removesuffix("]"), int(port))


def check_address(address: str) -> Finding:
    found = endpoint(address)
    if found is None:
        text = f"{address!r} is not HOST:PORT"
        return failed(
            "address", text, "--planner names the host and port of the planner's --listen"
        )
    began = time.monotonic()
    try:
        found.open().close()
    except (socket.gaierror, UnicodeError) as error:
        text = f"{found.host} has no address: {getattr(error, 'strerror', None) or error}"
        return failed("address", text, "correct the name in --planner, or the DNS that knows it")
    except TimeoutError:
        return failed(
            "address",
            f"nothing answers at {address}",
            f"a firewall or network policy drops what goes there, or the machine is down{_proxy()}",
        )
    except ConnectionRefusedError:
        return failed(
            "address",
            f"nothing listens at {address}",
            "start `ditplan serve planner`; one that listens on 127.0.0.1 is for its own machine: "
            f"--listen 0.0.0.0:PORT{_proxy()}",
        )
    except OSError as error:
        text = f"{address} cannot be reached: {error.strerror or error}"
        return failed("address", text, f"check the network between here and there{_proxy()}")
    return ok("address", f"{address} answers, {(time.monotonic() - began) * 1000:.1f} ms")


def _resolved(host: str, port: int) -> list[str]:
    """In a thread: the system's resolver takes as long as it likes."""
    results: queue.Queue[list[str] | OSError | UnicodeError] = queue.Queue()

    def resolve() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            results.put(list(dict.fromkeys(str(each[4][0]) for each in found)))
        except (OSError, UnicodeError) as error:
            results.put(error)

    threading.Thread(target=resolve, daemon=True).start()
    try:
        result = results.get(timeout=_RESOLVE_SECONDS)
    except queue.Empty:
        text = f"the DNS does not answer within {_RESOLVE_SECONDS:g} s"
        raise socket.gaierror(socket.EAI_AGAIN, text) from None
    if isinstance(result, Exception):
        raise result
    return result


def _proxy() -> str:
    """What gRPC would do otherwise than this check."""
    found = [name for name in _PROXIES if os.environ.get(name)]
    return f"; gRPC would dial through the proxy in {found[0]}" if found else ""
