"""Options of ``ditplan serve planner`` that make it a replica of another planner."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from ditplan.common.connection import TOKEN_VARIABLE, connection

_FILE = click.Path(dir_okay=False, path_type=Path)
_PREFIX = "dispatch_"
_DIALLING = {
    "dispatch_ca": "--dispatch-tls-ca",
    "dispatch_certificate": "--dispatch-tls-cert",
    "dispatch_key": "--dispatch-tls-key",
    "dispatch_server_name": "--dispatch-tls-server-name",
    "dispatch_token_file": "--dispatch-token-file",
}
# About work, which a replica has none of.
_OF_DISPATCH = {
    "data": "--data",
    "max_queue": "--max-queue",
    "max_queue_per_client": "--max-queue-per-client",
    "retain": "--retain",
    "max_data_bytes": "--max-data-bytes",
    "log_prompts": "--log-prompts",
    "scaler_listen": "--scaler-listen",
}
_OPTIONS = (
    click.option(
        "--dispatch",
        metavar="HOST:PORT",
        help="Be a replica without --data: compile, and forward generations to the planner there.",
    ),
    click.option(
        "--dispatch-tls-ca",
        "dispatch_ca",
        type=_FILE,
        help="Dial it by TLS; its certificate is of one of these authorities (PEM).",
    ),
    click.option(
        "--dispatch-tls-cert",
        "dispatch_certificate",
        type=_FILE,
        help="Certificate to show it (PEM).",
    ),
    click.option(
        "--dispatch-tls-key", "dispatch_key", type=_FILE, help="That certificate's key (PEM)."
    ),
    click.option(
        "--dispatch-tls-server-name",
        "dispatch_server_name",
        metavar="NAME",
        help="Whom its certificate names.  [default: the host of its address]",
    ),
    click.option(
        "--dispatch-token-file",
        type=_FILE,
        help=f"Holds a token of role front for it.  [default: the token in {TOKEN_VARIABLE}]",
    ),
)


def dispatch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``dispatch``, an address or None, and how it is dialled, as one ``connection``."""

    @wraps(command)
    def with_dispatch(*arguments: Any, dispatch: str | None, insecure: bool, **options: Any) -> Any:
        _check(dispatch)
        given = {name.removeprefix(_PREFIX): options.pop(name) for name in _DIALLING}
        plain = insecure and given["ca"] is None
        dialled = connection(os.environ, insecure=plain, **given)
        options |= {"dispatch": dispatch, "connection": dialled, "insecure": insecure}
        return command(*arguments, **options)

    for option in reversed(_OPTIONS):
        with_dispatch = option(with_dispatch)
    return with_dispatch


def in_its_words(error: Exception) -> str:
    """What is wrong with a `Connection`, with the options as they are called here."""
    return str(error).replace("--tls-", "--dispatch-tls-").replace("--token-", "--dispatch-token-")


def _check(dispatch: str | None) -> None:
    context = click.get_current_context()

    def given(options: dict[str, str]) -> list[str]:
        source = context.get_parameter_source
        return [options[name] for name in options if source(name) is not ParameterSource.DEFAULT]

    if dispatch is None and (useless := given(_DIALLING)):
        raise click.UsageError(f"{', '.join(useless)}: only together with --dispatch")
    if dispatch is not None and (useless := given(_OF_DISPATCH)):
        raise click.UsageError(
            f"{', '.join(useless)}: not together with --dispatch; queue and data are those of "
            f"the planner at {dispatch}"
        )
