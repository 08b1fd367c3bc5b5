"""The tokens file: what it may hold, and what becomes of it when it changes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from planner.access.identity import Identity, Role
from planner.access.tokens import TokenFile, TokensError, parse_tokens

DIGEST = "a" * 64
ANNA = f"- name: anna\n  role: client\n  sha256: {DIGEST}\n"


def faults(text: str, *, certificates: bool = True) -> list[str]:
    with pytest.raises(TokensError) as caught:
        parse_tokens(text, "tokens.yaml", certificates=certificates)
    return str(caught.value).splitlines()


def test_an_entry_is_an_identity_and_how_it_is_proven() -> None:
    text = ANNA + "- {name: bert, role: admin, certificate: bert.example, expires: 2001-02-03}\n"
    anna, bert = parse_tokens(text, "tokens.yaml", certificates=True)
    assert anna.identity == Identity("anna", frozenset({Role.CLIENT}))
    assert anna.digest == bytes.fromhex(DIGEST)
    assert not anna.has_expired()
    assert bert.identity.sees_all
    assert bert.certificate == "bert.example"
    assert bert.has_expired()


def test_expiry_is_to_the_second_and_in_utc() -> None:
    entry = f"{ANNA}  expires: 2001-02-03T04:05:06\n"
    zoned = f"{ANNA}  expires: 2001-02-03T05:05:06+01:00\n"
    [[one], [other]] = (parse_tokens(t, "t", certificates=False) for t in (entry, zoned))
    assert one.expires == other.expires == 981173106


def test_every_fault_has_its_line() -> None:
    text = f"""\
- name: anna
  role: boss
  sha256: {DIGEST}
- name: "two words"
  role: client
  token: plain
- name: carl
  role: client
  sha256: {DIGEST.upper()}
  expires: soon
- name: dora
  name: dora
  role: client
  certificate: d
"""
    assert faults(text, certificates=False) == [
        "tokens.yaml:1: role: 'boss' is not allowed; allowed: client, executor, admin, front",
        "tokens.yaml:4: 'token' is not known; known: name, role, sha256, certificate, expires",
        "tokens.yaml:4: sha256 is missing",
        "tokens.yaml:4: name: 1 to 128 letters, digits or ._@- are allowed",
        "tokens.yaml:7: sha256: is not 64 lower-case hex digits, as `ditplan token` prints",
        "tokens.yaml:7: expires: 'soon' is no time such as 2027-01-31T12:00:00Z",
        "tokens.yaml:11: name comes twice",
        "tokens.yaml:11: certificate: none is asked for without --tls-client-ca",
    ]


@pytest.mark.parametrize("text", ["", "anna: client", "- anna", "- [", "&a [*a", "- &a [*a]", "\0"])
def test_what_is_no_list_of_entries_is_refused(text: str) -> None:
    assert faults(text)[0].startswith("tokens.yaml")


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    text = "- name: anna\n  role: client\n  sha256: my-plain-password\n"
    assert not any("password" in fault for fault in faults(text))


def test_entries_that_contradict_each_other_are_refused() -> None:
    other = f"- name: bert\n  role: client\n  sha256: {DIGEST}\n"
    assert faults(ANNA + other) == ["tokens.yaml:4: sha256: is that of anna, too"]
    other = f"- name: anna\n  role: admin\n  sha256: {'b' * 64}\n"
    assert faults(ANNA + other) == ["tokens.yaml:4: role: anna has another one above"]


def test_two_tokens_of_one_name_are_a_rotation() -> None:
    text = f"{ANNA}- name: anna\n  role: client\n  sha256: {'b' * 64}\n"
    assert len(parse_tokens(text, "t", certificates=False)) == 2


def test_a_file_is_followed_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(ANNA)
    tokens = TokenFile(file, certificates=False)
    with capture_logs() as logs:
        file.write_text(ANNA.replace("anna", "bert"))
        assert tokens.follow()
        assert [entry.identity.name for entry in tokens.entries()] == ["bert"]
        for break_it in (lambda: file.write_text("- ["), file.unlink):
            break_it()
            assert not tokens.follow()
            assert not tokens.follow()
            assert [entry.identity.name for entry in tokens.entries()] == ["bert"]
        file.write_text(ANNA)
        assert tokens.follow()
    assert [entry["event"] for entry in logs] == [
        "tokens_read",
        "tokens_kept",
        "tokens_kept",
        "tokens_read",
    ]
    assert [entry["log_level"] for entry in logs][1] == "error"


def test_a_change_is_seen_within_a_second_or_so(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(ANNA)
    tokens = TokenFile(file, certificates=False)
    replacement = tmp_path / "new"
    replacement.write_text("[]")
    os.replace(replacement, file)
    deadline = time.monotonic() + 2
    while tokens.entries():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokensError, match=r"none\.yaml: No such file"):
        TokenFile(tmp_path / "none.yaml", certificates=False)
