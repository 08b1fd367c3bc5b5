"""Options of every command that dials a planner, on both sides of the contract."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ditplan.common.connection import TOKEN_VARIABLE, connection

_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option(
        "--tls-ca",
        "ca",
        type=_FILE,
        help="Dial by TLS; the planner's certificate is of one of these authorities (PEM).",
    ),
    click.option("--tls-cert", "certificate", type=_FILE, help="The own certificate (PEM)."),
    click.option("--tls-key", "key", type=_FILE, help="The own certificate's key (PEM)."),
    click.option(
        "--tls-server-name",
        "server_name",
        metavar="NAME",
        help="Whom the planner's certificate names.  [default: the host of its address]",
    ),
    click.option(
        "--token-file",
        type=_FILE,
        help=f"Holds the token to call with.  [default: the token in {TOKEN_VARIABLE}]",
    ),
    click.option("--insecure", is_flag=True, help="Dial other machines in plaintext, too."),
)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what a planner is dialled with, passed on as one ``connection``."""

    @wraps(command)
    def with_connection(
        *arguments: Any,
        ca: Path | None,
        certificate: Path | None,
        key: Path | None,
        server_name: str | None,
        token_file: Path | None,
        insecure: bool,
        **options: Any,
    ) -> Any:
        given = connection(
            os.environ,
            ca=ca,
            certificate=certificate,
            key=key,
            server_name=server_name,
            token_file=token_file,
            insecure=insecure,
        )
        return command(*arguments, connection=given, **options)

    for option in reversed(_OPTIONS):
        with_connection = option(with_connection)
    return with_connection
