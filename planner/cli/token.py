"""``ditplan token``: a secret for one client, executor, administrator or planner replica."""

from __future__ import annotations

import hashlib
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

_ROLES = click.Choice(["client", "executor", "admin", "front"])
_BYTES = 32


@click.command()
@click.argument("name")
@click.option("--role", type=_ROLES, default="client", show_default=True)
@click.option("--days", type=click.IntRange(1, 36_500), help="Expire after so many.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the token in this new file, for --token-file, instead of showing it.",
)
def token(name: str, role: str, days: int | None, out: Path | None) -> None:
    """Make a random token for NAME and print its entry for the file of --tokens.

    The entry holds a digest, not the token. It goes to standard output, the token to standard
    error or to --out: `ditplan token anna --out anna.token >> tokens.yaml`.
    """
    made = secrets.token_urlsafe(_BYTES)
    entry = [
        f"- name: {name}",
        f"  role: {role}",
        f"  sha256: {hashlib.sha256(made.encode()).hexdigest()}",
    ]
    if days is not None:
        expires = datetime.now(UTC) + timedelta(days=days)
        entry.append(f"  expires: {expires:%Y-%m-%dT%H:%M:%SZ}")
    text = "\n".join(entry) + "\n"
    _check(text)
    if out is None:
        click.echo(f"token: {made}", err=True)
    else:
        _keep(out, made)
    click.echo(text, nl=False)


def _check(entry: str) -> None:
    from planner.access.tokens import TokensError, parse_tokens

    try:
        parse_tokens(entry, "entry", certificates=False)
    except TokensError as error:
        raise click.UsageError(str(error).partition(": ")[2]) from None


def _keep(file: Path, token: str) -> None:
    """In a file of one's own, which nobody else can read at any time."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"{token}\n")
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from None
