"""Whether both sides speak TLS, and trust each other."""

from __future__ import annotations

import contextlib
import ssl
import time
from typing import Any

from ditplan.common.connection import Connection, is_local

from planner.cli.checkup.address import CONNECT_SECONDS, Endpoint
from planner.cli.checkup.finding import Finding, failed, ok, warning

_DAY = 86400
_WARN_DAYS = 14
# OpenSSL's X509_V_ERR_*.
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_NAME = (62, 64)
_RENEW = "issue a new one to the planner's --tls-cert; it reads the file when it changes"
_NO_CERTIFICATE = (
    "give --tls-cert and --tls-key of an authority in the planner's --tls-client-ca "
    "(see docs/security.md)"
)


def check_tls(address: str, found: Endpoint, connection: Connection) -> Finding:
    if connection.ca is None:
        return _plaintext(address, found)
    try:
        context = _context(connection)
    except (OSError, ValueError) as error:
        text = f"the files of --tls-* cannot be used: {error}"
        return failed("tls", text, "see docs/security.md for how they are made")
    name = connection.server_name or found.host or "localhost"
    try:
        with _handshake(found, context, name) as opened:
            return _established(opened, connection, name)
    except ssl.SSLCertVerificationError as error:
        return _distrusted(error, found, context, name)
    except TimeoutError:
        return _mute(address)
    except (OSError, ValueError) as error:
        return failed(
            "tls",
            f"no TLS with {address}: {error}",
            "where the planner serves plaintext: start it with --tls-cert and --tls-key, or leave "
            "--tls-ca out here",
        )


def _plaintext(address: str, found: Endpoint) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with _handshake(found, context, "localhost"):
            text = f"{address} speaks TLS, and is dialled in plaintext"
            return failed("tls", text, "give --tls-ca with the authority of its certificate")
    except TimeoutError:
        return _mute(address)
    except (OSError, ValueError):
        # As it should be: this was not what a server of plaintext expects.
        pass
    if is_local(address):
        return ok("tls", "plaintext, which does not leave this machine")
    text = "plaintext: everyone on the way can read and change what is sent, tokens included"
    return warning("tls", text, "serve with --tls-cert and --tls-key, dial with --tls-ca")


def _mute(address: str) -> Finding:
    text = f"{address} takes connections, and says nothing within {CONNECT_SECONDS:g} s"
    return failed("tls", text, "the planner is stopped or overloaded: look at its process and log")


def _context(connection: Connection) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(connection.ca)
    # As gRPC does: what the file holds is trusted, root or not.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["h2"])
    if connection.certificate is not None and connection.key is not None:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(connection.certificate, connection.key, password="")
    return context


def _handshake(found: Endpoint, context: ssl.SSLContext, name: str) -> ssl.SSLSocket:
    raw = found.open()
    try:
        raw.settimeout(CONNECT_SECONDS)
        return context.wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def _established(opened: ssl.SSLSocket, connection: Connection, name: str) -> Finding:
    if opened.selected_alpn_protocol() != "h2":
        text = "the other side speaks TLS, but no HTTP/2"
        return failed("tls", text, "a proxy between has to pass TLS on, or speak HTTP/2 (ALPN h2)")
    try:
        # HTTP/2 servers speak first: with TLS 1.3 a certificate is refused only now.
        refused = not opened.recv(1)
        why = "it ended the connection"
    except TimeoutError:
        refused, why = False, ""
    except OSError as error:
        refused, why = True, getattr(error, "reason", None) or str(error)
    if refused:
        own = "that of --tls-cert" if connection.certificate else "none was given"
        text = f"the planner does not accept this side's certificate ({own}): {why}"
        return failed("tls", text, _NO_CERTIFICATE)
    certificate: Any = opened.getpeercert()
    left = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / _DAY
    text = f"{opened.version()}, certificate for {name}, valid for {left:.0f} more days"
    if left < _WARN_DAYS:
        return warning("tls", text, _RENEW)
    return ok("tls", text)


def _distrusted(
    error: ssl.SSLCertVerificationError, found: Endpoint, context: ssl.SSLContext, name: str
) -> Finding:
    code, text = error.verify_code, error.verify_message
    if code == _EXPIRED:
        return failed("tls", f"the planner's certificate is not valid: {text}", _RENEW)
    if code == _NOT_YET_VALID:
        text = f"the planner's certificate is not valid: {text}"
        return failed("tls", text, "set the clocks of both machines, or issue it anew")
    if code in _OTHER_NAME:
        names = _names(found, context, name)
        return failed(
            "tls",
            f"the planner's certificate is not for {name}, but for {names}",
            "dial by one of these names, give one as --tls-server-name, or issue it anew for "
            f"{name}",
        )
    return failed(
        "tls",
        f"the planner's certificate is of an unknown authority: {text}",
        "give the authority that issued it as --tls-ca",
    )


def _names(found: Endpoint, context: ssl.SSLContext, name: str) -> str:
    context.check_hostname = False
    with contextlib.suppress(OSError), _handshake(found, context, name) as opened:
        certificate: Any = opened.getpeercert()
        names = [value for _, value in certificate.get("subjectAltName", ())]
        return ", ".join(names) or "no name"
    return "another"
