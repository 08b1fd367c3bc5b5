"""TLS of files that others replace: every new connection gets what they hold by then."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import grpc
import structlog
from ditplan.common.connection import is_local
from ditplan.common.secret_files import Stamp, read_by_all, stamp

from planner.settings import Security

# Many times what a thread takes to begin a handshake with the certificates it was given.
_BEGINNING_SECONDS = 0.1

log = structlog.get_logger(__name__)


class SecurityError(Exception):
    """The planner cannot serve like this; the message names the option that is to change."""


def check_security(listen: str, security: Security) -> None:
    """SecurityError where options contradict each other, or anyone on the way could read along."""
    if (security.certificate is None) != (security.key is None):
        raise SecurityError("--tls-cert and --tls-key go together")
    if security.certificate is not None:
        if security.insecure:
            raise SecurityError("--insecure is for plaintext, --tls-cert for TLS")
        return
    if security.client_ca is not None:
        raise SecurityError("--tls-client-ca goes together with --tls-cert and --tls-key")
    if not security.insecure and not is_local(listen):
        raise SecurityError(
            f"{listen} can be dialled from other machines: encrypt by --tls-cert and --tls-key, or "
            "have everything readable on the way by --insecure"
        )


def server_credentials(security: Security) -> grpc.ServerCredentials | None:
    """Of the files, followed as they change; None for plaintext.

    Raises:
        SecurityError: the files cannot be used.
    """
    if security.certificate is None or security.key is None:
        return None
    if read_by_all(security.key):
        log.warning("secret_exposed", file=str(security.key), reason="everyone here can read it")
    files = _Files(security.certificate, security.key, security.client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.first,
        files.changed,  # type: ignore[arg-type]  # Its types know nothing of None.
        require_client_authentication=security.client_ca is not None,
    )


class _Files:
    """Called by gRPC from threads of its own, from one at a time."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._files = tuple(filter(None, (certificate, key, client_ca)))
        try:
            self._stamp: Stamp | None = stamp(*self._files)
            self.first = self._read()
        except (OSError, SecurityError) as error:
            raise SecurityError(_said(error)) from None

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What new connections are to get from now on; None: the same as before."""
        found: Stamp | None = None
        new = None
        try:
            found = stamp(*self._files)
            if found == self._stamp:
                return None
            new = self._read()
            if stamp(*self._files) != found:
                # They change at this moment: the next connection looks again.
                return None
        except (OSError, SecurityError) as error:
            # Half of a replacement, perhaps; said once for each.
            if found != self._stamp:
                log.error("certificates_kept", reason=_said(error))
        else:
            log.info("certificates_read", file=str(self._certificate))
            # gRPC frees the former ones at once, while other threads may be about to begin a
            # handshake with them, and would crash (grpc/grpc issue 36693). New ones wait for this.
            time.sleep(_BEGINNING_SECONDS)
        self._stamp = found
        return new

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """Looked at by Python's own library first: gRPC would fail every connection instead."""
        checked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # The password keeps OpenSSL from asking for one on the terminal.
            checked.load_cert_chain(self._certificate, self._key, password="")
        except ssl.SSLError as error:
            files = f"--tls-cert {self._certificate} and --tls-key {self._key}"
            reason = error.reason or "no PEM of a certificate and its unencrypted key"
            raise SecurityError(f"{files} do not go together: {reason}") from None
        try:
            if self._client_ca is not None:
                checked.load_verify_locations(self._client_ca)
        except ssl.SSLError:
            text = f"--tls-client-ca {self._client_ca}: holds no certificate in PEM"
            raise SecurityError(text) from None
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        roots = None if self._client_ca is None else self._client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([pair], roots)


def _said(error: OSError | SecurityError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
