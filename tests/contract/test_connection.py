"""What a planner is dialled with, and what is refused before it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from ditplan.common.connection import Connection, ConnectionOptionsError, is_local

CA = Path("ca.pem")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:7330",
        "127.9.9.9:1",
        "[::1]:7330",
        "localhost:7330",
        "unix:/tmp/x.sock",
        "unix-abstract:x",
        "ipv4:127.0.0.1:1",
        "dns:///localhost:1",
        "dns:localhost:1",
    ],
)
def test_an_address_of_this_machine_takes_plaintext(address: str) -> None:
    assert is_local(address)
    Connection().check(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "planner:1", "dns:///planner:1", "localhost.evil.com:1"],
)
def test_another_address_takes_tls_or_an_explicit_word(address: str) -> None:
    assert not is_local(address)
    with pytest.raises(ConnectionOptionsError, match=r"--tls-ca, or .* by --insecure"):
        Connection().check(address)
    Connection(insecure=True).check(address)
    Connection(ca=CA).check(address)


@pytest.mark.parametrize(
    ("connection", "why"),
    [
        (Connection(certificate=CA, key=CA), "--tls-cert goes together with --tls-ca"),
        (Connection(server_name="x"), "--tls-server-name goes together with --tls-ca"),
        (Connection(ca=CA, key=CA), "--tls-cert and --tls-key go together"),
        (Connection(ca=CA, insecure=True), "--insecure is for plaintext"),
    ],
)
def test_options_that_contradict_each_other_are_named(connection: Connection, why: str) -> None:
    with pytest.raises(ConnectionOptionsError, match=why):
        connection.check("127.0.0.1:1")


def test_a_file_that_is_missing_or_no_pem_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for connection, why in (
        (Connection(ca=tmp_path / "none"), "--tls-ca .*none: No such file"),
        (Connection(ca=empty), "--tls-ca .*empty: holds no PEM"),
        (Connection(token_file=tmp_path / "none"), "--token-file .*none: No such file"),
    ):
        with pytest.raises(ConnectionOptionsError, match=why):
            connection.open("127.0.0.1:1")


def test_what_is_no_token_is_refused_without_being_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("pass word with spaces")
    for connection in (Connection(token_file=file), Connection(token="pass word with spaces")):
        with pytest.raises(ConnectionOptionsError, match="holds no token") as caught:
            connection.open("127.0.0.1:1")
        assert "pass" not in str(caught.value)
        assert "pass" not in repr(connection)


def test_secrets_that_everyone_can_read_are_listed(tmp_path: Path) -> None:
    key, token = tmp_path / "key", tmp_path / "token"
    for file, mode in ((key, 0o644), (token, 0o600)):
        file.touch()
        file.chmod(mode)
    assert Connection(ca=CA, certificate=CA, key=key, token_file=token).exposed() == [key]
