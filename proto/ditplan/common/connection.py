"""How a planner is dialled: by TLS or in plaintext, and with which token.

A token travels as ``authorization: Bearer TOKEN`` with every call.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditplan.common.secret_files import Stamp, read_by_all, stamp

if TYPE_CHECKING:
    import grpc

    from ditplan.common.channel import Tls

TOKEN_VARIABLE = "DITPLAN_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}=*")
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
        return open_channel(address, options, self._tls(), self.token_source())

    def open_aio(self, address: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        """The same for asyncio, without the token: who calls sends that of `token_source`."""
        from ditplan.common.channel import open_aio_channel

        self.check(address)
        return open_aio_channel(address, options, self._tls())

    def token_source(self) -> Callable[[], str] | None:
        """What says the token of now; None where there is none.

        Raises:
            ConnectionOptionsError: there is something else.
        """
        if self.token_file is not None:
            return _TokenFile(self.token_file).token
        if not self.token:
            return None
        token = _checked(self.token, TOKEN_VARIABLE)
        return lambda: token

    def stamp(self) -> Stamp:
        """Changes with the files of TLS, which a channel reads once; as they are now."""
        with contextlib.suppress(OSError):
            return stamp(*filter(None, (self.ca, self.certificate, self.key)))
        return ()

    def exposed(self) -> list[Path]:
        """The files with secrets that everyone on this machine can read."""
        return [file for file in (self.key, self.token_file) if file and read_by_all(file)]

    def _tls(self) -> Tls | None:
        from ditplan.common.channel import Tls

        if self.ca is None:
            return None
        key = None if self.key is None else _read("--tls-key", self.key)
        certificate = None if self.certificate is None else _read("--tls-cert", self.certificate)
        return Tls(_read("--tls-ca", self.ca), key, certificate, self.server_name)


PLAIN = Connection()


def connection(environment: Mapping[str, str], **options: Any) -> Connection:
    """Of the options that a command was given, and the token in its environment."""
    return Connection(token=environment.get(TOKEN_VARIABLE, ""), **options)


def _read(option: str, file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConnectionOptionsError(f"{option} {file}: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise ConnectionOptionsError(f"{option} {file}: holds no PEM")
    return data


def _checked(token: str, where: str) -> str:
    """The token, of which no message may hold a part."""
    token = token.strip()
    if _TOKEN.fullmatch(token) is None:
        raise ConnectionOptionsError(f"{where} holds no token: 16 to 512 letters, digits or ._~+/-")
    return token


class _TokenFile:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: Stamp | None = None
        try:
            self._read()
        except OSError as error:
            raise ConnectionOptionsError(f"--token-file {file}: {error.strerror}") from None

    def token(self) -> str:
        """What the file holds; while it is being replaced, what it held."""
        with contextlib.suppress(OSError, ConnectionOptionsError):
            if stamp(self._file) != self._stamp:
                self._read()
        return self._held

    def _read(self) -> None:
        now = stamp(self._file)
        text = self._file.read_text(encoding="utf-8", errors="replace")
        self._held = _checked(text, f"--token-file {self._file}")
        self._stamp = now
