"""How a planner is dialled: by TLS or in plaintext, and with which token.

A token travels as ``authorization: Bearer TOKEN`` with every call.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditplan.common.secret_files import Stamp, read_by_all, stamp

if TYPE_CHECKING:
    import grpc

TOKEN_VARIABLE = "DITPLAN_TOKEN"
_SCHEME = re.compile(r"(?:ipv4|ipv6|dns):(?://[^/]*/)?")


class ConnectionOptionsError(Exception):
    """The options cannot be followed; the message names the one that is to change."""


def is_local(address: str) -> bool:
    """Whether only this machine can listen to what goes to the address, or dial it."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = _SCHEME.sub("", address).rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Connection:
    """What a planner is dialled with. ``ca`` asks for TLS; ``insecure`` allows plaintext anywhere.

    ``certificate`` and ``key`` are this side's own, for a planner that wants one. The token is that
    of ``token_file``, else ``token``, else there is none.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    token_file: Path | None = None
    token: str = field(default="", repr=False)
    insecure: bool = False

    def check(self, address: str) -> None:
        """ConnectionOptionsError where the address is not to be dialled with these options."""
        if self.ca is None:
            for option, value in (
                ("--tls-cert", self.certificate),
                ("--tls-key", self.key),
                ("--tls-server-name", self.server_name),
            ):
                if value is not None:
                    raise ConnectionOptionsError(f"{option} goes together with --tls-ca")
            if not self.insecure and not is_local(address):
                raise ConnectionOptionsError(
                    f"{address} is not on this machine: encrypt by --tls-ca, or have everything "
                    "readable on the way by --insecure"
                )
        elif self.insecure:
            raise ConnectionOptionsError("--insecure is for plaintext, --tls-ca for TLS")
        if (self.certificate is None) != (self.key is None):
            raise ConnectionOptionsError("--tls-cert and --tls-key go together")

    def open(self, address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
        """A channel to a planner, which reads a token file again when it changes.

        Raises:
            ConnectionOptionsError: a file cannot be used, or plaintext is not to go there.
        """
        # Only now, so that commands which dial nobody start at once.
        from ditplan.common.channel import open_channel

        self.check(address)
        return open_channel(self, address, options)

    def stamp(self) -> Stamp:
        """Changes with the files of TLS, which a channel reads once; as they are now."""
        with contextlib.suppress(OSError):
            return stamp(*filter(None, (self.ca, self.certificate, self.key)))
        return ()

    def exposed(self) -> list[Path]:
        """The files with secrets that everyone on this machine can read."""
        return [file for file in (self.key, self.token_file) if file and read_by_all(file)]


PLAIN = Connection()


def connection(environment: Mapping[str, str], **options: Any) -> Connection:
    """Of the options that a command was given, and the token in its environment."""
    return Connection(token=environment.get(TOKEN_VARIABLE, ""), **options)
