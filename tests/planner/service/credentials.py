"""Tokens and certificates of one test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import trustme

from planner.settings import Security, Settings

TOKENS = {
    "anna": ("client", ""),
    "bert": ("client", ""),
    "ranks": ("executor", ""),
    "others": ("executor", ""),
    "root": ("admin", ""),
    "front": ("front", ""),
    "late": ("admin", "2001-01-01"),
}


def token(name: str) -> str:
    return f"token-of-{name}-0123456789"


def entry(name: str, role: str, expires: str = "") -> str:
    digest = hashlib.sha256(token(name).encode()).hexdigest()
    text = f"- name: {name}\n  role: {role}\n  sha256: {digest}\n"
    return text + (f"  expires: {expires}\n" if expires else "")


def with_tokens(settings: Settings, directory: Path) -> Settings:
    """The settings of a planner that lets in whom TOKENS lists."""
    file = directory / "tokens.yaml"
    file.write_text("".join(entry(name, *rest) for name, rest in TOKENS.items()))
    return replace(settings, security=replace(settings.security, tokens=file))


@dataclass(frozen=True)
class Authority:
    """Issues certificates into a directory."""

    ca: trustme.CA
    directory: Path

    @property
    def file(self) -> Path:
        path = self.directory / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Files of a certificate and its key; a second one of that name replaces the first."""
        made = self.ca.issue_cert(*(hosts or (f"{name}.example",)), common_name=name)
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(made.private_key_pem.bytes())
        return certificate, key

    def client(self, name: str = "") -> grpc.ChannelCredentials:
        """Trusts this authority; shows a certificate of it to whoever asks if it has a name."""
        if not name:
            return grpc.ssl_channel_credentials(self.ca.cert_pem.bytes())
        certificate, key = self.issue(name)
        roots = self.ca.cert_pem.bytes()
        return grpc.ssl_channel_credentials(roots, key.read_bytes(), certificate.read_bytes())


def with_tls(settings: Settings, authority: Authority, client_ca: Path | None = None) -> Settings:
    certificate, key = authority.issue("planner", "127.0.0.1", "localhost")
    security: Security = replace(
        settings.security, certificate=certificate, key=key, client_ca=client_ca
    )
    return replace(settings, security=security)
