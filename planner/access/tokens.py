"""The tokens file: who may call, as what, known by the digest of a token or by a certificate."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
import yaml
from ditplan.common.secret_files import Stamp, stamp

from planner.access.identity import Identity, Role

_MAX_BYTES = 1 << 20
_KEYS = ("name", "role", "sha256", "certificate", "expires")
_ROLES = {role.value: role for role in Role}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOK_AGAIN_SECONDS = 1.0

log = structlog.get_logger(__name__)


class TokensError(Exception):
    """The tokens file cannot be used; a line for every fault, with its place."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One way to prove an identity: a token's SHA-256, a name in a certificate, or either.

    ``expires``: seconds since the epoch.
    """

    identity: Identity
    digest: bytes | None
    certificate: str | None
    expires: float | None

    def has_expired(self) -> bool:
        return self.expires is not None and time.time() >= self.expires


def token_digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class TokenFile:
    """The entries of a file, followed as it changes.

    ``certificates``: whether connections show certificates, so that entries may name one.
    """

    def __init__(self, file: Path, *, certificates: bool) -> None:
        """Raises TokensError where there is no such file, or a fault in it."""
        self._file = file
        self._certificates = certificates
        try:
            self._stamp: Stamp | None = stamp(file)
            self._entries = self._read()
        except OSError as error:
            raise TokensError(f"{file}: {error.strerror}") from None
        self._look_at = time.monotonic() + _LOOK_AGAIN_SECONDS

    def entries(self) -> tuple[Entry, ...]:
        """As the file is, or was until a second ago; where it is broken, as it was before."""
        if time.monotonic() >= self._look_at:
            self.follow()
        return self._entries

    def follow(self) -> bool:
        """Looks at the file now; whether there are other entries."""
        self._look_at = time.monotonic() + _LOOK_AGAIN_SECONDS
        found: Stamp | None = None
        try:
            found = stamp(self._file)
            if found == self._stamp:
                return False
            self._entries = self._read()
        except (OSError, TokensError) as error:
            if found != self._stamp:
                log.error("tokens_kept", file=str(self._file), reason=str(error))
            self._stamp = found
            return False
        self._stamp = found
        log.info("tokens_read", file=str(self._file), entries=len(self._entries))
        return True

    def _read(self) -> tuple[Entry, ...]:
        with self._file.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise TokensError(f"{self._file}: is larger than {_MAX_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise TokensError(f"{self._file}: is not UTF-8") from None
        return parse_tokens(text, str(self._file), certificates=self._certificates)


def parse_tokens(text: str, name: str, *, certificates: bool) -> tuple[Entry, ...]:
    """The entries of a file's text. Raises TokensError with all of its faults."""
    try:
        # Of nodes, which know their lines and repeated keys, and in which every value is a text.
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise TokensError(f"{name}{line}: is no YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError):
        raise TokensError(f"{name}: is no YAML") from None
    if not isinstance(root, yaml.SequenceNode):
        raise TokensError(f"{name}: is no list of entries with {', '.join(_KEYS)}")
    entries: list[Entry] = []
    faults: list[str] = []
    for node in root.value:
        entry, found = _entry(node, certificates=certificates)
        if entry is not None:
            found += _contradictions(entry, entries)
            entries.append(entry)
        faults += [f"{name}:{node.start_mark.line + 1}: {fault}" for fault in found]
    if faults:
        raise TokensError("\n".join(faults))
    return tuple(entries)


def _entry(node: yaml.Node, *, certificates: bool) -> tuple[Entry | None, list[str]]:
    """The entry of a node where it has no fault, else its faults."""
    if not isinstance(node, yaml.MappingNode):
        return None, [f"is no entry with {', '.join(_KEYS)}"]
    values, faults = _values(node)
    for key in ("name", "role"):
        if key not in values:
            faults.append(f"{key} is missing")
    if "sha256" not in values and "certificate" not in values:
        faults.append("sha256 is missing")
    faults += _value_faults(values)
    if "certificate" in values and not certificates:
        faults.append("certificate: none is asked for without --tls-client-ca")
    expires = _time(values["expires"]) if "expires" in values else None
    if faults:
        return None, faults
    identity = Identity(values["name"], frozenset({_ROLES[values["role"]]}))
    digest = bytes.fromhex(values["sha256"]) if "sha256" in values else None
    return Entry(identity, digest, values.get("certificate"), expires), []


def _values(node: yaml.MappingNode) -> tuple[dict[str, str], list[str]]:
    values: dict[str, str] = {}
    faults = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value not in _KEYS:
            shown = repr(key.value[:40]) if isinstance(key, yaml.ScalarNode) else "a key"
            faults.append(f"{shown} is not known; known: {', '.join(_KEYS)}")
        elif key.value in values:
            faults.append(f"{key.value} comes twice")
        elif not isinstance(value, yaml.ScalarNode):
            faults.append(f"{key.value} is no text")
        else:
            values[key.value] = value.value
    return values, faults


def _value_faults(values: dict[str, str]) -> Iterator[str]:
    """Values that mean nothing; those that could be a secret put in the wrong place stay unsaid."""
    if "name" in values and _NAME.fullmatch(values["name"]) is None:
        yield "name: 1 to 128 letters, digits or ._@- are allowed"
    if "role" in values and values["role"] not in _ROLES:
        yield f"role: {values['role'][:40]!r} is not allowed; allowed: {', '.join(_ROLES)}"
    if "sha256" in values and _DIGEST.fullmatch(values["sha256"]) is None:
        yield "sha256: is not 64 lower-case hex digits, as `ditplan token` prints"
    if "certificate" in values and not values["certificate"].strip():
        yield "certificate: is empty"
    if "expires" in values and _time(values["expires"]) is None:
        yield f"expires: {values['expires'][:40]!r} is no time such as 2027-01-31T12:00:00Z"


def _time(text: str) -> float | None:
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _contradictions(entry: Entry, earlier: list[Entry]) -> Iterator[str]:
    for other in earlier:
        if other.digest == entry.digest is not None:
            yield f"sha256: is that of {other.identity.name}, too"
        if other.certificate == entry.certificate is not None:
            yield f"certificate: is that of {other.identity.name}, too"
        if other.identity.name == entry.identity.name and other.identity != entry.identity:
            yield f"role: {entry.identity.name} has another one above"
