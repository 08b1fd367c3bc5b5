"""Who there is to do work, and whether it is done."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from ditplan.v1 import monitor_pb2, planner_pb2, planner_pb2_grpc

from planner.cli.checkup.finding import Finding, failed, ok, skipped, warning
from planner.cli.checkup.service import CALL_SECONDS
from planner.cli.client import Refusal, refusal_of
from planner.cli.top_view import SILENT_SECONDS, ago
from planner.render.placements import device_in_words, placement_in_words

_WARN_QUEUE_SECONDS = 60.0
_SHOWN = 4
_ADMIN = "only the token of an administrator shows them"

Status = monitor_pb2.WatchStatusResponse


def check_executors(status: Status | None, address: str) -> Finding:
    if status is None:
        return skipped("executors", _ADMIN, "--model NAME asks who serves that one")
    start = f"`ditplan serve executor --planner {address} --model MODEL`"
    if not status.executors:
        text = "none is connected"
        return failed("executors", text, f"start {start}; one that runs logs why it is not let in")
    texts = [_executor(each) for each in status.executors]
    text = f"{len(texts)} connected: {_some(texts)}"
    silent = [
        each.executor.name for each in status.executors if each.silent_seconds >= SILENT_SECONDS
    ]
    if silent:
        remedy = "their processes, or the network to them, have a problem: look at their logs"
        return warning("executors", f"{text}; silent: {_some(silent)}", remedy)
    return ok("executors", text)


def check_plan(channel: grpc.Channel, address: str, model: str, config: str) -> Finding:
    """Whether a config could be served for a model now, and if not, what differs."""
    stub = planner_pb2_grpc.PlannerServiceStub(channel)
    request = planner_pb2.CompilePlanRequest(model=model, config=config)
    try:
        answer = stub.CompilePlan(request, timeout=CALL_SECONDS)
    except grpc.RpcError as error:
        return _not_compiled(refusal_of(error), model)
    able = [each.executor for each in answer.executors if not each.differences]
    if able:
        return ok("plan", f"{answer.plan.plan_id[:12]} can run on {_some(able)}")
    anew = [each.executor for each in answer.executors if each.after_reload]
    if anew:
        text = f"{answer.plan.plan_id[:12]} can run on {_some(anew)}, after loading its model anew"
        return warning("plan", text, "for no delay, start an executor with --plan of this plan")
    if not answer.executors:
        return failed(
            "plan",
            f"no connected executor serves {model}",
            f"start `ditplan serve executor --planner {address} --model {model}`",
        )
    texts = [f"{each.executor}: {', '.join(each.differences)}" for each in answer.executors]
    return failed(
        "plan",
        f"no executor could run {answer.plan.plan_id[:12]}: {_some(texts, '; ')}",
        "`ditplan compile` makes a plan file: start an executor with it as --plan",
    )


def check_queue(status: Status | None) -> Finding:
    if status is None:
        return skipped("queue", _ADMIN.replace("them", "it"))
    if not status.queued:
        return ok("queue", f"empty; {status.running} running")
    text = f"{status.queued} queued, the oldest for {ago(status.oldest_queued_seconds)}"
    text += f"; {status.running} running"
    served = {each.executor.model for each in status.executors}
    wanted = dict.fromkeys(each.model for each in status.queue)
    missing = [model for model in wanted if model not in served]
    if missing:
        text = f"{text}; no connected executor serves {_some(missing)}"
        return warning("queue", text, "start executors for what waits, or cancel it")
    if status.oldest_queued_seconds > _WARN_QUEUE_SECONDS:
        idle = [each for each in status.executors if not each.HasField("run")]
        remedy = (
            "idle executors may hold another placement than what waits needs: --model and --config "
            "here say what differs"
            if idle
            else "all executors are busy: start more of them"
        )
        return warning("queue", text, remedy)
    return ok("queue", text)


def _not_compiled(refusal: Refusal, model: str) -> Finding:
    if refusal.reason == "UNKNOWN_MODEL":
        remedy = (
            "name a published model, one that an executor serves (`ditplan top` shows them), or a "
            "directory below the planner's --model-root"
        )
        return failed("plan", f"the planner knows no model {model!r}", remedy)
    faults = [f"{field}: {text}" if field else text for field, text in refusal.faults]
    text = _some(faults, "; ") if faults else str(refusal)
    remedy = f"`ditplan preview CONFIG --model {model}` shows the place"
    return failed("plan", f"it cannot be compiled: {text}", remedy)


def _executor(each: monitor_pb2.ExecutorStatus) -> str:
    executor = each.executor
    holds = f"{executor.model}, {device_in_words(executor)}, {placement_in_words(executor)}"
    return f"{executor.name} ({holds})"


def _some(texts: Sequence[str], between: str = ", ") -> str:
    more = len(texts) - _SHOWN
    return between.join(texts[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
