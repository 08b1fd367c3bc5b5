"""What an executor answers itself, over a real socket."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest
from ditplan.v1.executor_pb2 import Executor, GetExecutorRequest
from ditplan.v1.executor_pb2_grpc import ExecutorServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from executor.agent.server import CannotListenError, ExecutorServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def server() -> Iterator[ExecutorServer]:
    server = ExecutorServer()
    yield server
    server.stop()


@pytest.fixture
def channel(server: ExecutorServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.start('127.0.0.1:0')}") as channel:
        yield channel


def _health(channel: grpc.Channel) -> tuple[int, int]:
    stub = health_pb2_grpc.HealthStub(channel)
    ready, alive = (
        stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
        for service in ("", "liveness")
    )
    return ready, alive


def test_it_is_alive_at_once_and_ready_while_it_serves(
    server: ExecutorServer, channel: grpc.Channel
) -> None:
    assert _health(channel) == (NOT_SERVING, SERVING)
    server.ready()
    assert _health(channel) == (SERVING, SERVING)
    server.not_ready()
    assert _health(channel) == (NOT_SERVING, SERVING)


def test_many_health_watchers_leave_room_for_others(
    server: ExecutorServer, channel: grpc.Channel
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
    assert [next(watch).status for watch in watches] == [NOT_SERVING] * 20
    assert _health(channel) == (NOT_SERVING, SERVING)
    for watch in watches:
        watch.cancel()


def test_the_end_of_one_health_watch_leaves_the_others_told(
    server: ExecutorServer, channel: grpc.Channel
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    first, second = (stub.Watch(health_pb2.HealthCheckRequest(), timeout=10) for _ in range(2))
    assert (next(first).status, next(second).status) == (NOT_SERVING, NOT_SERVING)
    first.cancel()
    time.sleep(0.2)
    server.ready()
    assert next(second).status == SERVING
    server.not_ready()
    assert next(second).status == NOT_SERVING


def test_it_says_what_it_is_and_what_it_runs(server: ExecutorServer, channel: grpc.Channel) -> None:
    stub = ExecutorServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetExecutor(GetExecutorRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    server.describe(Executor(name="here"))
    server.begin("generations/1", "abc")
    response = stub.GetExecutor(GetExecutorRequest(), timeout=5)
    assert (response.executor.name, response.generation, response.plan_id) == (
        "here",
        "generations/1",
        "abc",
    )
    server.end()
    response = stub.GetExecutor(GetExecutorRequest(), timeout=5)
    assert (response.generation, response.plan_id) == ("", "")


def test_its_services_can_be_listed(channel: grpc.Channel) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    (response,) = stub.ServerReflectionInfo(iter([request]), timeout=5)
    names = {service.name for service in response.list_services_response.service}
    assert {"ditplan.v1.ExecutorService", "grpc.health.v1.Health"} <= names


def test_where_others_can_dial_it_tells_its_health_only(server: ExecutorServer) -> None:
    port = server.start("0.0.0.0:0", health_only=True)
    server.describe(Executor(name="here"))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert _health(channel) == (NOT_SERVING, SERVING)
        with pytest.raises(grpc.RpcError) as caught:
            ExecutorServiceStub(channel).GetExecutor(GetExecutorRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_port_that_is_taken_is_said(server: ExecutorServer) -> None:
    port = server.start("127.0.0.1:0")
    other = ExecutorServer()
    with pytest.raises(CannotListenError, match=str(port)):
        other.start(f"127.0.0.1:{port}")
    other.stop()
