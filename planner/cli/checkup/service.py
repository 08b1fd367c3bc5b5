"""What a planner answers: whether it is well, to whom it talks, what it says of itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import grpc
from ditplan.common.connection import Connection, is_local
from ditplan.v1 import monitor_pb2, monitor_pb2_grpc, planner_pb2, planner_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from planner.cli.checkup.finding import Finding, failed, ok, skipped, warning
from planner.cli.client import Refusal, refusal_of

CALL_SECONDS = 5.0
_WARN_SKEW_SECONDS = 2.0
# A look that others had taken before is no older.
_FRESH_SECONDS = 0.1
_MAKE_TOKEN = "`ditplan token NAME --role client` makes one, for the planner's --tokens"
_BY_REASON = {
    "CREDENTIALS_MISSING": f"give one by --token-file or DITPLAN_TOKEN; {_MAKE_TOKEN}",
    "CREDENTIALS_UNKNOWN": "add its entry to the file of the planner's --tokens; the planner's "
    "log says tokens_kept where that cannot be read",
    "CREDENTIALS_EXPIRED": _MAKE_TOKEN,
    "DISPATCH_UNREACHABLE": "what listens there is a replica: look after the planner at its "
    "--dispatch, and at its log, which says dispatch_unreachable",
}
_SHOWN_VERSIONS = 4

Status = monitor_pb2.WatchStatusResponse


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of the calls. ``status`` is None for who is no administrator.

    ``skew``: seconds by which the planner's clock is ahead.
    """

    token: Finding
    status: Status | None = None
    version: str = ""
    skew: float | None = None


def check_health(channel: grpc.Channel) -> Finding:
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        return failed("health", _said(refusal), _remedy(refusal))
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        return failed("health", name, "it is stopping: wait for the next one, or look at its log")
    return ok("health", "SERVING")


def ask(channel: grpc.Channel, address: str, connection: Connection) -> Answers:
    """Tries what only some roles may do, so as to know which one this side has."""
    try:
        version, skew = _about(channel)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        if refusal.code is grpc.StatusCode.PERMISSION_DENIED:
            who = refusal.message.partition(", which")[0]
            text = f"{who}, which takes leases and may not ask for anything else"
            return Answers(failed("token", text, f"use that of a client: {_MAKE_TOKEN}"))
        return Answers(failed("token", _said(refusal), _remedy(refusal)))
    try:
        status = _status(channel)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        if refusal.code is not grpc.StatusCode.PERMISSION_DENIED:
            return Answers(failed("token", _said(refusal), _remedy(refusal)), None, version, skew)
        who = refusal.message.partition(", which")[0]
        return Answers(ok("token", f"accepted: {who}"), None, version, skew)
    return Answers(_admitted(address, connection), status, version, skew)


def check_versions(answers: Answers) -> Finding:
    same, differ = [], []
    for package, found in _software(answers).items():
        if len(found) == 1:
            same.append(f"{package} {next(iter(found))}")
        else:
            each = [f"{number} ({_some(names)})" for number, names in found.items()]
            differ.append(f"{package} is {' and '.join(each)}")
    if differ:
        remedy = "use the same ones everywhere: with others a plan's result may differ"
        return warning("versions", "; ".join(differ), remedy)
    who = "everywhere" if answers.status is not None else "here and at the planner"
    return ok("versions", f"{', '.join(same)} {who}")


def check_clock(answers: Answers) -> Finding:
    if answers.skew is None:
        return skipped("clock", "this planner does not say what time it has")
    seconds = abs(answers.skew)
    if seconds <= _WARN_SKEW_SECONDS:
        return ok("clock", f"within {max(seconds, 0.1):.1f} s of the planner's")
    side = "ahead of" if answers.skew > 0 else "behind"
    text = f"the planner's is {seconds:.1f} s {side} this machine's"
    remedy = "run NTP on both: deadlines, expiry of tokens and certificates go by the clock"
    return warning("clock", text, remedy)


def _about(channel: grpc.Channel) -> tuple[str, float | None]:
    """The planner's version and by how much its clock is ahead, as far as it says so."""
    stub: Any = planner_pb2_grpc.PlannerServiceStub(channel)
    began = time.time()
    _, call = stub.ListModels.with_call(planner_pb2.ListModelsRequest(), timeout=CALL_SECONDS)
    here = (began + time.time()) / 2
    said = dict(call.trailing_metadata() or ())
    try:
        skew = float(said["ditplan-time"]) - here
    except (KeyError, ValueError):
        skew = None
    return str(said.get("ditplan-version", "")), skew


def _status(channel: grpc.Channel) -> Status:
    stub = monitor_pb2_grpc.MonitorServiceStub(channel)
    request = monitor_pb2.WatchStatusRequest(once=True, interval_seconds=_FRESH_SECONDS)
    return next(iter(stub.WatchStatus(request, timeout=CALL_SECONDS)))


def _admitted(address: str, connection: Connection) -> Finding:
    """Of who may do everything: because of what was shown, or because everyone may?"""
    with replace(connection, token_file=None, token="").open(address) as anonymous:
        try:
            _status(anonymous)
        except grpc.RpcError:
            return ok("token", "accepted: of an administrator")
    if connection.certificate is not None:
        return ok("token", "not needed: this side's certificate may do everything")
    if is_local(address):
        return ok("token", "not needed: whoever is on this machine may do everything")
    text = "not needed: whoever can reach the planner may do everything"
    return warning("token", text, f"start it with --tokens: {_MAKE_TOKEN}")


def _software(answers: Answers) -> dict[str, dict[str, list[str]]]:
    """Package, then version, then who has it."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    found["ditplan"][version("ditplan")].append("this command")
    found["ditplan"][answers.version or "unknown"].append("planner")
    for each in answers.status.executors if answers.status is not None else ():
        for software in each.executor.versions:
            package, _, number = software.partition(" ")
            found[package][number].append(each.executor.name)
    return found


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = len(found) - _SHOWN_VERSIONS
    return ", ".join(found[:_SHOWN_VERSIONS]) + (f" and {more} more" if more > 0 else "")


def _said(refusal: Refusal) -> str:
    if refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {CALL_SECONDS:g} s"
    return str(refusal)


def _remedy(refusal: Refusal) -> str:
    if refusal.reason in _BY_REASON:
        return _BY_REASON[refusal.reason]
    match refusal.code:
        case grpc.StatusCode.UNIMPLEMENTED:
            return "what listens there is no planner: --planner wants the planner's --listen"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return "it is stopped or overloaded: look at its log and its load"
        case grpc.StatusCode.UNAVAILABLE:
            return "what listens there speaks no gRPC, or is ending: look at the planner's log"
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "close some of this client's streams, or raise --max-streams-per-client"
    return "look at the planner's log"
