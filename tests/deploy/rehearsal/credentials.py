"""The secrets that the manifests name, as a platform team would have made them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import trustme

_DOMAINS = ("", ".ditplan", ".ditplan.svc", ".ditplan.svc.cluster.local")
_ROLES = {"anna": "client", "ops": "admin", "executors": "executor", "front": "front"}


def names_of(service: str) -> list[str]:
    """What a service can be called by."""
    return [service + domain for domain in _DOMAINS]


def make(directory: Path) -> Mapping[str, Path]:
    """A directory for every secret, by its name; ``client`` is what a client holds."""
    ca = trustme.CA()
    for service in ("planner", "dispatch", "executor", "client"):
        made = ca.issue_cert(*names_of(service), common_name=service)
        secret = directory / ("client" if service == "client" else f"{service}-tls")
        secret.mkdir(parents=True)
        (secret / "tls.crt").write_bytes(b"".join(c.bytes() for c in made.cert_chain_pems))
        (secret / "tls.key").write_bytes(made.private_key_pem.bytes())
        ca.cert_pem.write_to_path(secret / "ca.crt")
    entries = ""
    for name, role in _ROLES.items():
        file = directory / f"{name}.token"
        command = [sys.executable, "-m", "planner", "token", name, "--role", role, "--out", file]
        entries += subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for secret, key, text in (
        ("ditplan-tokens", "tokens.yaml", entries),
        ("front-token", "token", (directory / "front.token").read_text()),
        ("executor-token", "token", (directory / "executors.token").read_text()),
        ("client", "anna.token", (directory / "anna.token").read_text()),
        ("client", "ops.token", (directory / "ops.token").read_text()),
    ):
        (directory / secret).mkdir(exist_ok=True)
        (directory / secret / key).write_text(text)
    found = {path.name: path for path in directory.iterdir() if path.is_dir()}
    for secret, path in found.items():
        for file in path.iterdir():
            file.chmod(0o600 if secret == "client" else 0o644)
    return found
