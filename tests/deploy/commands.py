"""Manifests' command lines as the commands themselves parse them."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import click
from ditplan.common.connection import Connection, ConnectionOptionsError, connection
from torch.distributed.run import get_args_parser

import executor.__main__
import planner.cli.serve
from planner.access.tls import SecurityError, check_security
from planner.cli.forwarding import _check as check_dispatch
from planner.settings import Security
from tests.deploy.rendering import Pods

_PLANNER = ["ditplan", "serve", "planner"]
_EXECUTOR = "executor"
_DIALLING = ("ca", "certificate", "key", "server_name", "token_file")


class Misuse(Exception):
    """The command would refuse it."""


def torchrun(pods: Pods) -> Namespace | None:
    """What torchrun understands; None of a planner."""
    if pods.command[0] != "torchrun":
        return None
    try:
        return get_args_parser().parse_args(pods.command[1:])
    except SystemExit:
        raise Misuse("torchrun refuses its arguments") from None


def options(pods: Pods) -> dict[str, Any]:
    """The parsed options of what a pod serves.

    Raises:
        Misuse: it would not start with them.
    """
    launch = torchrun(pods)
    if launch is None:
        if pods.command[:3] != _PLANNER:
            raise Misuse(f"{pods.command[:3]} is not {_PLANNER}")
        given = _parsed(planner.cli.serve.planner, pods.command[3:])
        _check_planner(given)
        return given
    if not launch.module or launch.training_script != _EXECUTOR:
        raise Misuse(f"torchrun starts {launch.training_script}, not -m {_EXECUTOR}")
    given = _parsed(executor.__main__.main, launch.training_script_args)
    if pods.group != "worker":
        _check_dialling(_connection(given, ""), given["planner"])
    return given


def option_names() -> set[str]:
    commands = (planner.cli.serve.planner, executor.__main__.main)
    return {name for command in commands for each in command.params for name in each.opts}


def _parsed(command: click.Command, arguments: Sequence[str]) -> dict[str, Any]:
    command = copy.deepcopy(command)
    for each in command.params:
        # What is mounted is not here.
        if isinstance(each.type, click.Path):
            each.type.exists = False
    try:
        with command.make_context(command.name, list(arguments)) as context:
            if "dispatch" in context.params:
                check_dispatch(context.params["dispatch"])
            return context.params
    except click.ClickException as error:
        raise Misuse(error.format_message()) from None


def _check_planner(given: dict[str, Any]) -> None:
    security = Security(
        given["tls_cert"],
        given["tls_key"],
        given["tls_client_ca"],
        given["tokens"],
        given["insecure"],
        given["health_listen"],
    )
    try:
        check_security(given["listen"], security)
    except SecurityError as error:
        raise Misuse(str(error)) from None
    if given["dispatch"]:
        dialled = _connection(given, "dispatch_")
        _check_dialling(dialled, given["dispatch"])


def _connection(given: dict[str, Any], prefix: str) -> Connection:
    found = {name: given[prefix + name] for name in _DIALLING}
    return connection({}, insecure=given["insecure"] and found["ca"] is None, **found)


def _check_dialling(dialled: Connection, address: str) -> None:
    try:
        dialled.check(address)
    except ConnectionOptionsError as error:
        raise Misuse(str(error)) from None
