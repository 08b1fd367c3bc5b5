"""What an operations team sees of a planner and an executor: metrics, traces, logs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from ditplan.v1 import generation_pb2, generation_pb2_grpc

from tests.e2e import processes
from tests.e2e.conftest import CACHE_YAML
from tests.e2e.processes import Fleet, Service, eventually, free_address
from tests.planner.service.prometheus import faults, scrape, value

PROMPT = "a red circle on a secret hill"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"

Start = Callable[..., Service]


@pytest.fixture
def start_services(
    tmp_path: Path, services: list[Service], start_executor: Start
) -> Callable[..., tuple[Service, Service]]:
    """Starts a planner and an executor, both with these options."""

    def start(*options: str) -> tuple[Service, Service]:
        data = str(tmp_path / "data")
        arguments = ("-m", "planner", "serve", "planner", "--data", data, *options)
        planner = Service(tmp_path, "planner", *arguments)
        services.append(planner)
        planner.await_ready()
        return planner, start_executor(planner, *options, name="worker")

    return start


def _generate(planner: Service, checkpoint: Path, config: str = "") -> generation_pb2.Generation:
    spec = generation_pb2.GenerationSpec(
        model=str(checkpoint),
        prompt=PROMPT,
        num_inference_steps=8,
        seed=3,
        height=32,
        width=32,
        config=config,
    )
    metadata = (
        ("traceparent", f"00-{TRACE}-{CALLER}-01"),
        ("x-request-id", "call-17"),
    )
    with grpc.insecure_channel(planner.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(spec=spec)
        *_, last = stub.Generate(request, metadata=metadata, timeout=60)
    finished: generation_pb2.Generation = last.event.finished
    assert finished.state == generation_pb2.GENERATION_STATE_SUCCEEDED
    return finished


class Sink:
    """An OTLP collector over gRPC that keeps what it is sent."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1 import (
            trace_service_pb2,
            trace_service_pb2_grpc,
        )

        self.spans: list[tuple[str, Any]] = []
        lock = threading.Lock()
        sink = self

        class Service(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
            def Export(self, request: Any, context: Any) -> Any:
                with lock:
                    for resource in request.resource_spans:
                        sink._take(resource)
                return trace_service_pb2.ExportTraceServiceResponse()

        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _take(self, resource: Any) -> None:
        names = [
            a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
        ]
        for scope in resource.scope_spans:
            self.spans += [(names[0], span) for span in scope.spans]

    def find(self, name: str) -> Any:
        return next((span for _, span in list(self.spans) if span.name == name), None)

    def stop(self) -> None:
        self._server.stop(0).wait()


@dataclass(frozen=True)
class Seen:
    """A planner and an executor that tell all that they can, and the one run that they did."""

    planner: Service
    executor: Service
    planner_metrics: str
    executor_metrics: str
    sink: Sink
    generation: generation_pb2.Generation


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Seen]:
    sink, ports = Sink(), [free_address(), free_address()]
    with (
        Fleet(tmp_path_factory.mktemp("seen")) as fleet,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, setting in {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{sink.address}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }.items():
            patch.setitem(processes.ENVIRONMENT, name, setting)
        serve = ("-m", "planner", "serve", "planner", "--data", str(fleet.directory / "data"))
        planner = fleet.start("planner", *serve, "--metrics-listen", ports[0])
        execute = ("-m", "executor", "--name", "worker", "--planner", planner.address)
        model = ("--model", str(checkpoint), "--metrics-listen", ports[1])
        executor = fleet.start("executor", *execute, *model)
        patch.undo()
        yield Seen(planner, executor, *ports, sink, _generate(planner, checkpoint, CACHE_YAML))
    sink.stop()


def test_one_trace_goes_from_the_call_to_the_steps(seen: Seen) -> None:
    find, generation = seen.sink.find, seen.generation
    names = ("ditplan.v1.GenerationService/Generate", "queued", "leased", "run")
    eventually(lambda: all(find(name) for name in names))
    call, queued, leased, run = (find(name) for name in names)
    assert {span.trace_id.hex() for span in (call, queued, leased, run)} == {TRACE}
    assert call.parent_span_id.hex() == CALLER
    assert queued.parent_span_id == leased.parent_span_id == call.span_id
    assert run.parent_span_id == leased.span_id
    services = {span.name: service for service, span in seen.sink.spans}
    assert services["leased"] == "ditplan-planner"
    assert services["run"] == "ditplan-executor"
    attributes = {each.key: each.value for each in run.attributes}
    assert f"generations/{attributes['ditplan.generation'].string_value}" == generation.name
    assert attributes["ditplan.plan_id"].string_value == generation.plan.plan_id
    assert attributes["ditplan.executor"].string_value == "worker"
    steps = [event for event in run.events if event.name == "step"]
    assert len(steps) == 8
    assert queued.end_time_unix_nano <= leased.end_time_unix_nano
    assert leased.start_time_unix_nano <= run.start_time_unix_nano <= run.end_time_unix_nano


def _events(log: str) -> list[dict[str, Any]]:
    """Every line is an object of its own, but for the address that a planner prints."""
    lines = log.splitlines()
    return [json.loads(line) for line in lines if not line.startswith("127.0.0.1:")]


def _one(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    [found] = [event for event in events if event["event"] == name]
    return found


def test_logs_tell_one_event_a_fact_and_whose_it_is(seen: Seen) -> None:
    planner, executor, generation = seen.planner, seen.executor, seen.generation
    # Logged once the planner has answered.
    eventually(lambda: "generation_succeeded" in planner.log and "run_finished" in executor.log)
    told, done = _events(planner.log), _events(executor.log)
    bare = generation.name.removeprefix("generations/")
    plan = generation.plan.plan_id

    queued = _one(told, "generation_queued")
    assert (queued["request_id"], queued["generation"], queued["plan_id"]) == (
        "call-17",
        bare,
        plan,
    )
    for name in ("lease_granted", "executor_attached", "generation_succeeded"):
        event = _one(told, name)
        assert (event["generation"], event["plan_id"]) == (bare, plan)
        assert event["executor"] == "worker"
    for name in ("run_started", "run_finished"):
        event = _one(done, name)
        assert (event["generation"], event["plan_id"]) == (generation.name, plan)
        assert event["executor"] == "worker"
    assert all({"event", "level", "timestamp"} <= event.keys() for event in (*told, *done))
    assert "grpc.health" not in planner.log + executor.log
    assert "secret" not in planner.log + executor.log


def test_both_services_count_a_run(seen: Seen) -> None:
    full = sum(step.ops[0].kind == 1 for step in seen.generation.record.steps)
    ended = "ditplan_executor_run_seconds_count"
    # Counted once the planner has answered.
    eventually(lambda: value(scrape(seen.executor_metrics), ended, code="OK") == 1)
    counted, run = scrape(seen.planner_metrics), scrape(seen.executor_metrics)
    assert value(counted, "ditplan_planner_step_seconds_count", kind="full") == full
    assert value(run, "ditplan_executor_step_seconds_count", kind="full") == full
    assert value(run, "ditplan_executor_step_seconds_count", kind="cached") == 8 - full > 0
    assert value(run, "ditplan_executor_planner_connected") == 1
    assert value(run, "ditplan_executor_running") == 0
    assert value(run, "ditplan_executor_model_load_seconds_count") == 1
    assert value(run, "ditplan_executor_model_info", dtype="float32", quantization="none") == 1
    assert (value(run, "process_resident_memory_bytes") or 0) > 1e8
    assert faults(counted) == []
    assert faults(run) == []

    seen.planner.kill()
    connected = "ditplan_executor_planner_connected"
    eventually(lambda: value(scrape(seen.executor_metrics), connected) == 0, 30)
    assert seen.executor.stop() == 0


def test_prompts_are_logged_where_that_is_asked_for(
    start_services: Callable[..., tuple[Service, Service]], checkpoint: Path
) -> None:
    planner, executor = start_services("--log-prompts")
    _generate(planner, checkpoint)
    for service in (executor, planner):
        service.await_ready()
        assert service.stop() == 0
    assert _one(_events(planner.log), "generation_queued")["prompt"] == PROMPT
    assert _one(_events(executor.log), "run_started")["prompt"] == PROMPT


def test_only_what_is_of_the_level_is_logged(
    start_services: Callable[..., tuple[Service, Service]], checkpoint: Path
) -> None:
    planner, executor = start_services("--log-level", "warning")
    _generate(planner, checkpoint)
    assert executor.stop() == 0
    assert planner.stop() == 0
    assert _events(executor.log) == []
    assert _events(planner.log) == []
