"""The spans of a planner, in the order in which work goes through it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ditplan.common.tracing import NoTracesError, Tracing, tracing
from ditplan.v1 import executor_pb2, generation_pb2

from planner.dispatch.facts import Created, Ended, Granted, Requeued
from planner.service.server import Planner, Settings
from planner.store.values import Ending, Lease, State
from planner.telemetry import telemetry
from planner.telemetry.calls import UNKNOWN, Call
from planner.telemetry.traces import Traces
from tests.planner.service.peers import Client, Executor, create_request

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"00-{TRACE}-b7ad6b7169203331-01"
CREATE = "ditplan.v1.GenerationService"


@pytest.fixture
def exported() -> Any:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


@pytest.fixture
def traces(exported: Any) -> Traces:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return Traces(Tracing(provider))


def _lease(epoch: int, traceparent: str = "") -> Lease:
    executor = executor_pb2.Executor(name=f"exec-{epoch}")
    return Lease(
        generation="g",
        epoch=epoch,
        executor=executor,
        expires_at=0.0,
        cancel_code=None,
        cancel_reason=None,
        requirement="key",
        plan_id="plan",
        steps_done=0,
        step_count=1,
        traceparent=traceparent,
    )


def _failed() -> Ending:
    return Ending(State.FAILED, generation_pb2.Failure(code="UNAVAILABLE", message="it is gone"))


def test_every_wait_and_every_lease_is_a_span_of_the_call(traces: Traces, exported: Any) -> None:
    with traces.call(Call(CREATE, "CreateGeneration", CALLER)):
        traces.hear(Created("g", "plan", "model"))
    traces.hear(Granted(_lease(1), False))
    first = traces.traceparent("g")
    traces.hear(Requeued(_lease(1), "exec-1 was lost"))
    traces.hear(Granted(_lease(2), False))
    second = traces.traceparent("g")
    traces.hear(Ended("g", _failed(), _lease(2)))
    spans = exported.get_finished_spans()
    names = [span.name for span in spans]
    assert names == [f"{CREATE}/CreateGeneration", "queued", "leased", "queued", "leased"]
    call, *rest = spans
    assert {format(span.context.trace_id, "032x") for span in spans} == {TRACE}
    assert {span.parent.span_id for span in rest} == {call.context.span_id}
    ids = [format(span.context.span_id, "016x") for span in spans]
    assert [first, second] == [f"00-{TRACE}-{ids[2]}-01", f"00-{TRACE}-{ids[4]}-01"]
    assert [span.status.is_ok for span in spans] == [True, True, False, True, False]
    assert spans[2].status.description == "exec-1 was lost"
    assert spans[4].attributes["ditplan.code"] == "UNAVAILABLE"
    assert spans[4].attributes["ditplan.executor"] == "exec-2"
    assert traces.traceparent("g") == ""


async def test_calls_at_once_do_not_mix_their_traces(traces: Traces, exported: Any) -> None:
    async def create(number: int) -> None:
        with traces.call(Call(CREATE, "CreateGeneration", "")):
            await asyncio.sleep(0.01)
            traces.hear(Created(str(number), "plan", "model"))
            await asyncio.sleep(0.01)

    await asyncio.gather(*(create(number) for number in range(5)))
    assert len({traces.traceparent(str(number))[:35] for number in range(5)}) == 5


def test_calls_of_executors_and_of_no_service_have_no_span(traces: Traces, exported: Any) -> None:
    for service in ("ditplan.dispatch.v1.DispatchService", UNKNOWN):
        with traces.call(Call(service, "AcquireLease")):
            pass
    assert exported.get_finished_spans() == ()


def test_work_of_an_earlier_planner_goes_on_in_its_trace(traces: Traces, exported: Any) -> None:
    traces.hear(Ended("g", _failed(), _lease(1, CALLER)))
    traces.hear(Requeued(_lease(1, CALLER), "lost"))
    traces.hear(Granted(_lease(2, CALLER), False))
    traces.hear(Granted(replace(_lease(1, CALLER), generation="other"), False))
    traces.hear(Granted(replace(_lease(1), generation="untraced"), False))
    ids = {traces.traceparent(generation)[3:35] for generation in ("g", "other")}
    assert ids == {TRACE}
    assert traces.traceparent("untraced")
    traces.close()
    names = [span.name for span in exported.get_finished_spans()]
    assert names == ["queued", "leased", "leased", "leased"]


async def test_the_call_that_made_work_is_known_to_the_next_planner(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    monkeypatch.setattr(telemetry, "tracing", lambda *_: Tracing(TracerProvider()))
    async with Planner(settings) as planner, Client(planner.address) as client:
        request = create_request(queue=True)
        await client.generations.CreateGeneration(request, metadata=(("traceparent", CALLER),))
    async with Planner(settings) as planner, Executor(planner.address) as executor:
        run = await executor.start()
    assert run.assignment.traceparent[3:35] == TRACE


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "mine"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://here"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://here"},
    ],
)
def test_nothing_is_traced_unless_the_variables_ask_for_it(environ: Mapping[str, str]) -> None:
    assert tracing("service", environ) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
    ],
)
def test_what_cannot_be_done_is_named_with_its_variable(environ: Mapping[str, str]) -> None:
    name, wrong = list(environ.items())[-1]
    with pytest.raises(NoTracesError, match=f"{name} is '{wrong}'"):
        tracing("service", environ)
