"""TLS on both sides and tokens, from the command line to the picture."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.e2e.processes import Service, ditplan, free_address


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Certificates, tokens and the file that lists them, as docs/security.md makes them."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, hosts in (("planner", ["127.0.0.1"]), ("peer", ["peer.example"])):
        made = ca.issue_cert(*hosts)
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        key = tmp_path / f"{name}.key"
        key.touch(0o600)
        made.private_key_pem.write_to_path(key)
    entries = ""
    for name, role in (("anna", "client"), ("gpu", "executor"), ("root", "admin")):
        out = ("--out", tmp_path / f"{name}.token")
        entries += ditplan("token", name, "--role", role, *out).stdout
    (tmp_path / "tokens.yaml").write_text(entries)
    return tmp_path


def test_a_picture_comes_through_tls_and_only_for_who_may(
    files: Path, services: list[Service], checkpoint: Path, tmp_path: Path
) -> None:
    health = free_address()
    planner = Service(
        tmp_path,
        "planner",
        *("-m", "planner", "serve", "planner", "--data", str(tmp_path / "data")),
        *("--tls-cert", str(files / "planner.pem"), "--tls-key", str(files / "planner.key")),
        *("--tls-client-ca", str(files / "ca.pem"), "--tokens", str(files / "tokens.yaml")),
        *("--health-listen", health),
    )
    services.append(planner)
    planner.await_ready(health=health)
    tls = ("--planner", planner.address, "--tls-ca", str(files / "ca.pem"))
    peer = ("--tls-cert", str(files / "peer.pem"), "--tls-key", str(files / "peer.key"))
    executor = Service(
        tmp_path,
        "executor",
        *("-m", "executor", "--name", "one", "--model", str(checkpoint), *tls, *peer),
        *("--token-file", str(files / "gpu.token")),
    )
    services.append(executor)
    executor.await_ready()

    request = ("--model", str(checkpoint), "--prompt", "a circle", "--steps", "2", "--seed", "1")
    size = ("--height", "32", "--width", "32", "--out", str(tmp_path / "picture.png"))
    generate = ("generate", *request, *size, *tls)
    for token in ("anna", "root"):
        ditplan(*generate, *peer, "--token-file", str(files / f"{token}.token"))
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    secret = (files / "anna.token").read_text().strip()
    ditplan(*generate, *peer, environment={"DITPLAN_TOKEN": secret})

    for options, why in (
        (peer, "UNAUTHENTICATED: no token came"),
        ((*peer, "--token-file", str(files / "gpu.token")), "PERMISSION_DENIED: gpu is executor"),
        (("--token-file", str(files / "anna.token")), "UNAVAILABLE"),
    ):
        done = ditplan(*generate, *options, check=False)
        assert done.returncode == 2
        assert why in done.stderr
        assert secret not in done.stderr

    stranger = Service(
        tmp_path,
        "stranger",
        *("-m", "executor", "--name", "two", "--model", str(checkpoint), *tls, *peer),
        *("--token-file", str(files / "anna.token")),
    )
    services.append(stranger)
    assert stranger.process.wait(60) == 1
    assert "PERMISSION_DENIED: anna is client" in stranger.log
    for service in (executor, planner):
        assert service.stop() == 0, service.log
        assert secret not in service.log
        assert "a circle" not in service.log
    assert '"caller": "anna"' in planner.log
