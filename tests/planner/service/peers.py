"""The planner's peers over real sockets: clients, and executors that follow a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import grpc
from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.dispatch.v1.dispatch_pb2_grpc import DispatchServiceStub
from ditplan.v1 import executor_pb2, generation_pb2, plan_pb2, planner_pb2
from ditplan.v1.generation_pb2_grpc import GenerationServiceStub
from ditplan.v1.planner_pb2_grpc import PlannerServiceStub
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from planner.models.catalog import NAMED

MODEL = "black-forest-labs/FLUX.1-dev"
ADAPTIVE_CONFIG = """\
cache_config:
  max_warmup_steps: 2
  residual_diff_threshold: 0.1
"""


class Client:
    """Every service of one planner; ``tls`` encrypts, ``token`` is shown with every call."""

    def __init__(
        self, address: str, token: str = "", tls: grpc.ChannelCredentials | None = None
    ) -> None:
        self.address = address
        options = (("grpc.use_local_subchannel_pool", 1),)
        bearer = _with_token(token) if token else ()
        self.channel = (
            grpc.aio.insecure_channel(address, options, interceptors=bearer)
            if tls is None
            else grpc.aio.secure_channel(address, tls, options, interceptors=bearer)
        )
        self.planner: Any = PlannerServiceStub(self.channel)
        self.generations: Any = GenerationServiceStub(self.channel)
        self.dispatch: Any = DispatchServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def create(self, **changes: Any) -> generation_pb2.Generation:
        response = await self.generations.CreateGeneration(create_request(**changes))
        return response.generation

    async def get(self, name: str) -> generation_pb2.Generation:
        request = generation_pb2.GetGenerationRequest(name=name)
        return (await self.generations.GetGeneration(request)).generation

    async def watch(self, name: str, after: int = 0) -> list[generation_pb2.GenerationEvent]:
        """Every event until the generation ends."""
        request = generation_pb2.WatchGenerationRequest(name=name, after_sequence=after)
        return [r.event async for r in self.generations.WatchGeneration(request)]

    async def ended(self, name: str) -> generation_pb2.Generation:
        return (await self.watch(name))[-1].finished


def _with_token(token: str) -> list[grpc.aio.ClientInterceptor]:
    """An interceptor for each kind of call, which has the token among its metadata."""

    async def call(self: object, continuation: Any, details: Any, request: Any) -> Any:
        pair = ("authorization", f"Bearer {token}")
        metadata = grpc.aio.Metadata(*(details.metadata or ()), pair)
        return await continuation(details._replace(metadata=metadata), request)

    kinds = {
        "unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
        "unary_stream": grpc.aio.UnaryStreamClientInterceptor,
        "stream_unary": grpc.aio.StreamUnaryClientInterceptor,
        "stream_stream": grpc.aio.StreamStreamClientInterceptor,
    }
    return [type(kind, (base,), {f"intercept_{kind}": call})() for kind, base in kinds.items()]


def spec(**changes: Any) -> generation_pb2.GenerationSpec:
    values: dict[str, Any] = {"model": MODEL, "prompt": "a red circle", "num_inference_steps": 6}
    return generation_pb2.GenerationSpec(**(values | changes))


def create_request(
    request_id: str = "", *, queue: bool = False, validate_only: bool = False, **changes: Any
) -> generation_pb2.CreateGenerationRequest:
    return generation_pb2.CreateGenerationRequest(
        request_id=request_id,
        spec=spec(**changes),
        queue_without_executor=queue,
        validate_only=validate_only,
    )


def executor_message(name: str = "exec-1", **changes: Any) -> executor_pb2.Executor:
    configs = [
        executor_pb2.ComponentConfig(path=path, json=json.dumps(config))
        for path, config in NAMED[MODEL].items()
    ]
    values: dict[str, Any] = {
        "name": name,
        "model": MODEL,
        "component_configs": configs,
        "world_size": 1,
        "device": "cpu",
        "dtype": "float32",
    }
    return executor_pb2.Executor(**(values | changes))


@dataclass
class Run:
    """One open RunLease call of an executor."""

    call: Any
    lease: dispatch_pb2.Lease
    assignment: dispatch_pb2.Assignment
    next_step: int = -1

    @property
    def steps(self) -> Sequence[plan_pb2.Step]:
        return self.assignment.program.steps

    async def send(self, **message: Message) -> None:
        await self.call.write(dispatch_pb2.RunLeaseRequest(**message))

    async def receive(self) -> dispatch_pb2.RunLeaseResponse | None:
        """The next message; None at the end of the stream."""
        message = await asyncio.wait_for(self.call.read(), 10)
        return None if message is grpc.aio.EOF else message

    async def refusal(self) -> Refusal:
        """What the stream is refused with, after whatever else comes."""
        try:
            while await self.receive() is not None:
                pass
        except grpc.aio.AioRpcError as error:
            return Refusal(error)
        raise AssertionError("the stream ended well")

    async def attached(self) -> None:
        """Reads Attached."""
        message = await self.receive()
        assert message is not None, "the stream ended"
        assert message.WhichOneof("message") == "attached"
        self.next_step = message.attached.next_step

    def outcome(self, step: int, adaptive: int = plan_pb2.OP_KIND_CACHED) -> Any:
        """What an executor that follows the plan reports."""
        ops = []
        for number in self.steps[step].ops:
            kind = self.assignment.program.ops[number - 1].kind if number else 0
            if kind == plan_pb2.OP_KIND_ADAPTIVE:
                ops.append(generation_pb2.OpOutcome(kind=adaptive, residual_diff=0.05))
            else:
                ops.append(generation_pb2.OpOutcome(kind=kind))
        return generation_pb2.StepOutcome(step=step, ops=ops, milliseconds=1.0)

    async def report(self, first: int, end: int) -> None:
        outcomes = [self.outcome(step) for step in range(first, end)]
        await self.send(step_reports=dispatch_pb2.StepReports(steps=outcomes))

    async def complete(self, cache_bytes: Sequence[int] = ()) -> None:
        await self.send(
            completion=dispatch_pb2.Completion(
                denoise_seconds=1, total_seconds=2, cache_bytes=cache_bytes
            )
        )
        message = await self.receive()
        assert message is not None
        assert message.WhichOneof("message") == "done"


class Executor:
    """Speaks the dispatch protocol as its test tells it to, over a connection of its own."""

    def __init__(
        self, address: str, name: str = "exec-1", *, token: str = "", **announced: Any
    ) -> None:
        self.message = executor_message(name, **announced)
        # Of the latest lease.
        self.assignment = dispatch_pb2.Assignment()
        self.client = Client(address, token)
        # The call that is open for it.
        self.asked: asyncio.Task[dispatch_pb2.Lease | None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """Closes the connection without a word, as the end of a process does."""
        await self.client.channel.close()

    async def acquire(self, wait: float = 5.0) -> dispatch_pb2.Lease | None:
        request = dispatch_pb2.AcquireLeaseRequest(executor=self.message, wait_seconds=wait)
        response = await self.client.dispatch.AcquireLease(request)
        if not response.HasField("lease"):
            return None
        self.assignment = response.assignment
        return response.lease

    async def leased(self) -> dispatch_pb2.Lease:
        """Waits for work, in the call of `asking` where that is open."""
        asked, self.asked = self.asked, None
        lease = await (asked or self.acquire())
        assert lease is not None
        return lease

    async def heard(self) -> None:
        """Returns once the planner has begun with what was asked before, however busy it is."""
        await asyncio.sleep(0.05)
        for _ in range(2):
            await refused(self.client.dispatch.UploadArtifact(iter(())))

    async def attach(
        self, lease: dispatch_pb2.Lease, assignment: dispatch_pb2.Assignment | None = None
    ) -> Run:
        """``assignment``: what came with the lease, where another executor took it."""
        run = Run(self.client.dispatch.RunLease(), lease, assignment or self.assignment)
        attach = dispatch_pb2.Attach(lease=lease, executor=self.message.name)
        await run.send(attach=attach)
        return run

    async def start(self) -> Run:
        """Waits for work and attaches to it."""
        run = await self.attach(await self.leased())
        await run.attached()
        return run

    async def upload(
        self, lease: dispatch_pb2.Lease, name: str, data: bytes, chunk: int = 1 << 20
    ) -> generation_pb2.Artifact:
        header = dispatch_pb2.ArtifactHeader(lease=lease, name=name, media_type="image/png")

        async def messages() -> AsyncIterator[dispatch_pb2.UploadArtifactRequest]:
            yield dispatch_pb2.UploadArtifactRequest(header=header, data=data[:chunk])
            for first in range(chunk, len(data), chunk):
                yield dispatch_pb2.UploadArtifactRequest(data=data[first : first + chunk])

        return (await self.client.dispatch.UploadArtifact(messages())).artifact

    async def serve_one(self) -> Run:
        """Executes one run from start to end."""
        run = await self.start()
        await run.report(0, len(run.steps))
        await self.upload(run.lease, "image.png", b"picture")
        await run.complete()
        return run


@asynccontextmanager
async def asking(*executors: Executor) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Keeps executors connected, each waiting for work as soon as this block begins."""
    tasks = [asyncio.create_task(executor.acquire(wait=20)) for executor in executors]
    try:
        for executor, task in zip(executors, tasks, strict=True):
            executor.asked = task
            await executor.heard()
        yield tasks
    finally:
        for executor, task in zip(executors, tasks, strict=True):
            executor.asked = None
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Refusal:
    """What a call was refused with, read as any client would."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.infos: list[error_details_pb2.ErrorInfo] = []
        self.violations: dict[str, str] = {}
        self.diagnostics: list[planner_pb2.Diagnostic] = []
        self.retry_seconds: float | None = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                self._read(status_pb2.Status.FromString(value))

    def _read(self, status: status_pb2.Status) -> None:
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                self.infos.append(info)
            bad = error_details_pb2.BadRequest()
            if detail.Unpack(bad):
                self.violations = {v.field: v.description for v in bad.field_violations}
            diagnostic = planner_pb2.Diagnostic()
            if detail.Unpack(diagnostic):
                self.diagnostics.append(diagnostic)
            retry = error_details_pb2.RetryInfo()
            if detail.Unpack(retry):
                self.retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()


async def refused(call: Any) -> Refusal:
    """The refusal of a call, unary or streaming."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return Refusal(error)
    raise AssertionError("the call succeeded")
