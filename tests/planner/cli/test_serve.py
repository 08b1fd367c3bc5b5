"""``ditplan serve planner`` says in one line why it cannot serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from planner.store.directory import DataDirectory

DITPLAN = (sys.executable, "-m", "planner")


def serve(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (*DITPLAN, "serve", "planner", "--data", str(data), *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "garbage", "127.0.0.1:", "[::1]:x"])
def test_an_address_without_a_port_is_refused(tmp_path: Path, address: str) -> None:
    for option in ("--listen", "--scaler-listen"):
        done = serve(tmp_path, option, address)
        assert done.returncode == 2
        assert f"'{address}' is not HOST:PORT" in done.stderr


def test_a_directory_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    held = DataDirectory(tmp_path / "held")
    try:
        for data, why in (
            (tmp_path / "file" / "data", "Not a directory"),
            (tmp_path / "held", "another planner uses it"),
        ):
            done = serve(data, "--listen", "127.0.0.1:0")
            assert done.returncode == 2
            assert why in done.stderr
            assert "Traceback" not in done.stderr
    finally:
        held.close()


@pytest.mark.parametrize("arguments", [("--help",), ("generate", "--help")])
def test_a_full_disk_under_the_output_is_one_line(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            (*DITPLAN, *arguments), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_what_others_could_read_is_refused(tmp_path: Path) -> None:
    done = serve(tmp_path, "--listen", "0.0.0.0:0")
    assert done.returncode == 2
    assert "0.0.0.0:0 can be dialled from other machines" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_in_the_tokens_file_is_refused_with_its_line(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text("- name: anna\n  role: boss\n  sha256: x\n")
    done = serve(tmp_path / "data", "--listen", "127.0.0.1:0", "--tokens", str(tokens))
    assert done.returncode == 2
    assert f"{tokens}:1: role: 'boss' is not allowed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--data", "x"), "--data: not together with --dispatch"),
        (("--max-queue", "5", "--log-prompts"), "--max-queue, --log-prompts: not together with"),
        (("--scaler-listen", "127.0.0.1:0"), "--scaler-listen: not together with --dispatch"),
        (("--dispatch-tls-cert", "x"), "--dispatch-tls-cert goes together with --dispatch-tls-ca"),
        (("--dispatch-tls-ca", "/nowhere"), "--dispatch-tls-ca /nowhere: No such file"),
        (("--dispatch-token-file", "/nowhere"), "--dispatch-token-file /nowhere: No such file"),
    ],
)
def test_what_is_wrong_with_a_replica_is_named(arguments: tuple[str, ...], why: str) -> None:
    dispatch = ("--dispatch", "127.0.0.1:1", "--listen", "127.0.0.1:0")
    command = (*DITPLAN, "serve", "planner", *dispatch, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_dispatch_elsewhere_is_not_dialled_in_plaintext_unasked(tmp_path: Path) -> None:
    command = (*DITPLAN, "serve", "planner", "--dispatch", "10.0.0.1:7330")
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "encrypt by --dispatch-tls-ca" in done.stderr


def test_how_to_dial_dispatch_is_of_no_use_without_it(tmp_path: Path) -> None:
    done = serve(tmp_path, "--dispatch-token-file", "x")
    assert done.returncode == 2
    assert "--dispatch-token-file: only together with --dispatch" in done.stderr
