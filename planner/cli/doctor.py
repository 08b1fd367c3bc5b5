"""``ditplan doctor``: a deployment as a client finds it, with what to do about each fault."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click
from ditplan.common.connection import Connection, ConnectionOptionsError
from ditplan.common.connection_options import connection_options

from planner.cli.checkup.address import check_address, endpoint
from planner.cli.checkup.contract import check_contract
from planner.cli.checkup.finding import Finding, Verdict, failed, skipped
from planner.cli.checkup.service import ask, check_clock, check_health, check_versions
from planner.cli.checkup.tls import check_tls
from planner.cli.checkup.work import check_executors, check_plan, check_queue
from planner.cli.generation_spec import absolute
from planner.cli.inputs import config_name, read_config
from planner.cli.options import FORMATS, planner_option
from planner.cli.outcome import REFUSED
from planner.cli.terminal import look, report
from planner.config.environment import effective_text
from planner.diagnostics import has_errors
from planner.render.canvas import Canvas

_CHECKS = (
    *("address", "tls", "health", "token", "versions", "contract", "clock"),
    *("executors", "plan", "queue"),
)
_COLORS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}


@click.command()
@planner_option
@connection_options
@click.option("--model", metavar="NAME_OR_DIR", help="Check that it could be served.")
@click.option("--config", type=click.Path(), help="With this YAML; - for standard input.")
@click.option("--format", "form", type=FORMATS, default="text", show_default=True)
def doctor(
    planner: str, connection: Connection, model: str | None, config: str | None, form: str
) -> None:
    """Check from here that a planner can be reached, is well, and has executors.

    Each check takes a few seconds at most. The exit status is 1 where one has failed.
    """
    if config is not None and model is None:
        raise click.UsageError("--config goes together with --model")
    findings = []
    for finding in _findings(planner, connection, absolute(model), _text(config)):
        findings.append(finding)
        if form == "text":
            _show(finding)
    left = _left(findings, with_plan=model is not None)
    if form == "text" and left:
        _show(skipped(left[0].check, f"{left[0].message}, as {len(left) - 1} more checks"))
    healthy = all(finding.verdict is not Verdict.FAILED for finding in findings)
    if form == "json":
        checks = [{**asdict(each), "verdict": each.verdict.value} for each in (*findings, *left)]
        document = {"planner": planner, "healthy": healthy, "checks": checks}
        click.echo(json.dumps(document, indent=2))
    sys.exit(not healthy)


def _text(config: str | None) -> str:
    """As `ditplan generate` would send it."""
    source = read_config(config or "").decode("utf-8", "replace")
    text, found = effective_text(source, os.environ)
    report(found, source=source, source_name=config_name(config))
    if has_errors(found):
        sys.exit(REFUSED)
    return text


def _left(findings: Sequence[Finding], *, with_plan: bool) -> list[Finding]:
    """The checks that a fault has left no way to make."""
    done = {finding.check for finding in findings} | (set() if with_plan else {"plan"})
    reason = f"not without {findings[-1].check}"
    return [skipped(check, reason) for check in _CHECKS if check not in done]


def _findings(
    address: str, connection: Connection, model: str | None, config: str
) -> Iterator[Finding]:
    """Ends early behind a fault that leaves nothing more to be seen."""
    try:
        connection.check(address)
    except ConnectionOptionsError as error:
        yield failed("options", str(error), "see docs/security.md")
        return
    reached = check_address(address)
    yield reached
    found = endpoint(address)
    if found is None or reached.verdict is Verdict.FAILED:
        return
    trusted = check_tls(address, found, connection)
    yield trusted
    if trusted.verdict is Verdict.FAILED:
        return
    try:
        opened = connection.open(address)
    except ConnectionOptionsError as error:
        yield failed("token", str(error), "`ditplan token` makes one")
        return
    with opened as channel:
        health = check_health(channel)
        yield health
        if health.verdict is Verdict.FAILED:
            return
        answers = ask(channel, address, connection)
        yield answers.token
        if answers.token.verdict is Verdict.FAILED:
            return
        yield check_versions(answers)
        yield check_contract(channel)
        yield check_clock(answers)
        yield check_executors(answers.status, address)
        if model is not None:
            yield check_plan(channel, address, model, config)
        yield check_queue(answers.status)


def _show(finding: Finding) -> None:
    shape = look(sys.stdout)
    canvas = Canvas(width=shape["width"], color=shape["color"], ascii=shape["ascii"])
    verdict = canvas.paint(f"{finding.verdict.value:8}", _COLORS.get(finding.verdict))
    click.echo(f"{verdict} {finding.check:10} {canvas.show(finding.message)}")
    if finding.remedy:
        click.echo(f"{'':19} {'->' if shape['ascii'] else '→'} {canvas.show(finding.remedy)}")
