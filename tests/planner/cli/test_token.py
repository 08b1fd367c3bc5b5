"""``ditplan token`` makes what a tokens file and --token-file take."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from planner.access.tokens import parse_tokens, token_digest


def ditplan_token(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "planner", "token", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_the_entry_goes_to_the_file_and_the_token_beside_it() -> None:
    done = ditplan_token("gpu-1", "--role", "executor", "--days", "2")
    assert done.returncode == 0
    token = done.stderr.removeprefix("token: ").strip()
    [entry] = parse_tokens(done.stdout, "tokens.yaml", certificates=False)
    assert entry.identity.name == "gpu-1"
    assert [role.value for role in entry.identity.roles] == ["executor"]
    assert entry.digest == token_digest(token)
    assert entry.expires is not None
    assert abs(entry.expires - time.time() - 2 * 86_400) < 60
    assert token not in done.stdout


def test_a_token_is_kept_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "anna.token"
    done = ditplan_token("anna", "--out", str(file))
    assert done.stderr == ""
    assert file.stat().st_mode & 0o777 == 0o600
    [entry] = parse_tokens(done.stdout, "tokens.yaml", certificates=False)
    assert entry.digest == token_digest(file.read_text().strip())
    again = ditplan_token("anna", "--out", str(file))
    assert again.returncode == 2
    assert "File exists" in again.stderr
    assert entry.digest == token_digest(file.read_text().strip())


def test_a_name_that_no_file_may_hold_is_refused() -> None:
    done = ditplan_token("two words")
    assert done.returncode == 2
    assert "name: 1 to 128 letters" in done.stderr
    assert "token:" not in done.stderr
