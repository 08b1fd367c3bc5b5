"""The planner's side of the dispatch protocol, which does what a test tells it to."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from ditplan.dispatch.v1 import dispatch_pb2, dispatch_pb2_grpc
from ditplan.dispatch.v1.dispatch_pb2 import RunLeaseRequest, RunLeaseResponse
from ditplan.identity import plan_id
from ditplan.v1 import generation_pb2, plan_pb2

BATCH = 3


def default_spec(**changes: object) -> generation_pb2.GenerationSpec:
    values: dict[str, object] = {
        "model": "tiny",
        "prompt": "a red cat",
        "seed": 7,
        "height": 32,
        "width": 32,
        "guidance_scale": 3.5,
    }
    return generation_pb2.GenerationSpec(**(values | changes))  # type: ignore[arg-type]


@dataclass
class Job:
    """One generation: what is asked for, what the executor did, and how the planner behaves.

    ``on_request`` is called with every message of the stream and its number within that stream;
    what it returns is answered, what it raises breaks the stream.
    """

    program: plan_pb2.Program
    spec: generation_pb2.GenerationSpec = field(default_factory=default_spec)
    name: str = "generations/1"
    epoch: int = 1
    plan_id: str = ""
    first_step_offset: int = 0
    on_request: Callable[[RunLeaseRequest, int], RunLeaseResponse | None] = lambda request, n: None
    upload_status: list[grpc.StatusCode] = field(default_factory=list)

    attaches: list[dispatch_pb2.Attach] = field(default_factory=list)
    steps: list[generation_pb2.StepOutcome] = field(default_factory=list)
    reports: list[tuple[float, int]] = field(default_factory=list)
    heartbeats: int = 0
    artifacts: dict[str, bytes] = field(default_factory=dict)
    media_types: dict[str, str] = field(default_factory=dict)
    chunk_sizes: list[int] = field(default_factory=list)
    completion: dispatch_pb2.Completion | None = None
    failure: dispatch_pb2.RunFailure | None = None
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def lease(self) -> dispatch_pb2.Lease:
        return dispatch_pb2.Lease(generation=self.name, epoch=self.epoch)


class BreakStream(Exception):
    """Raised by a test's ``on_request`` to end the stream with a status."""

    def __init__(self, code: grpc.StatusCode, details: str = "scripted") -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class ScriptedPlanner(dispatch_pb2_grpc.DispatchServiceServicer):
    """Serves on a real socket; `stop` and `start` are a restart that keeps its jobs."""

    def __init__(self) -> None:
        self.waiting: queue.Queue[Job] = queue.Queue()
        self.jobs: dict[str, Job] = {}
        self.asked: list[dispatch_pb2.AcquireLeaseRequest] = []
        self.refuse_with: tuple[grpc.StatusCode, str] | None = None
        # None: plaintext.
        self.credentials: grpc.ServerCredentials | None = None
        self.bearers: list[str] = []
        self.port = 0
        self._stopping = threading.Event()
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._stopping = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8))
        dispatch_pb2_grpc.add_DispatchServiceServicer_to_server(self, self._server)
        address = self.address
        self.port = (
            self._server.add_insecure_port(address)
            if self.credentials is None
            else self._server.add_secure_port(address, self.credentials)
        )
        self._server.start()

    def stop(self) -> None:
        self._stopping.set()
        assert self._server is not None
        self._server.stop(0).wait(5)

    def offer(self, job: Job) -> Job:
        self.jobs[job.name] = job
        self.waiting.put(job)
        return job

    def AcquireLease(
        self, request: dispatch_pb2.AcquireLeaseRequest, context: grpc.ServicerContext
    ) -> dispatch_pb2.AcquireLeaseResponse:
        self.asked.append(request)
        self.bearers += [v for k, v in context.invocation_metadata() if k == "authorization"]
        if self.refuse_with is not None:
            context.abort(*self.refuse_with)
        until = time.monotonic() + request.wait_seconds
        stopping = self._stopping
        while not stopping.is_set() and context.is_active():
            try:
                job = self.waiting.get(timeout=0.02)
            except queue.Empty:
                if time.monotonic() >= until:
                    break
                continue
            return dispatch_pb2.AcquireLeaseResponse(lease=job.lease)
        return dispatch_pb2.AcquireLeaseResponse()

    def RunLease(
        self, request_iterator: Iterator[RunLeaseRequest], context: grpc.ServicerContext
    ) -> Iterator[RunLeaseResponse]:
        attach = next(request_iterator).attach
        job = self.jobs.get(attach.lease.generation)
        if job is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such generation")
        job.attaches.append(attach)
        if attach.lease.epoch != job.epoch or job.over.is_set():
            context.abort(grpc.StatusCode.ABORTED, "the lease is over")
        if not attach.resume:
            yield from _assignment(job)
        yield RunLeaseResponse(attached=dispatch_pb2.Attached(next_step=len(job.steps)))
        for number, request in enumerate(request_iterator):
            try:
                answer = job.on_request(request, number)
            except BreakStream as broken:
                context.abort(broken.code, broken.details)
            if answer is not None:
                yield answer
            self._take(job, request)
            if job.over.is_set():
                yield RunLeaseResponse(done=dispatch_pb2.Done())
                return

    def _take(self, job: Job, request: RunLeaseRequest) -> None:
        kind = request.WhichOneof("message")
        if kind == "step_reports":
            job.steps.extend(request.step_reports.steps)
            job.reports.append((time.monotonic(), len(request.step_reports.steps)))
        elif kind == "heartbeat":
            job.heartbeats += 1
        elif kind == "completion":
            job.completion = request.completion
            job.over.set()
        elif kind == "failure":
            job.failure = request.failure
            job.over.set()

    def UploadArtifact(
        self,
        request_iterator: Iterator[dispatch_pb2.UploadArtifactRequest],
        context: grpc.ServicerContext,
    ) -> dispatch_pb2.UploadArtifactResponse:
        requests = list(request_iterator)
        header = requests[0].header
        job = self.jobs[header.lease.generation]
        if job.upload_status:
            context.abort(job.upload_status.pop(0), "scripted")
        job.chunk_sizes += [len(request.data) for request in requests]
        job.artifacts[header.name] = b"".join(request.data for request in requests)
        job.media_types[header.name] = header.media_type
        return dispatch_pb2.UploadArtifactResponse()


def _assignment(job: Job) -> Iterator[RunLeaseResponse]:
    """The header, then the steps a few at a time."""
    bare = plan_pb2.Program()
    bare.CopyFrom(job.program)
    del bare.steps[:]
    yield RunLeaseResponse(
        header=dispatch_pb2.RunHeader(
            plan_id=job.plan_id or plan_id(job.program),
            program=bare,
            step_count=len(job.program.steps),
            spec=job.spec,
        )
    )
    for first in range(0, len(job.program.steps), BATCH):
        yield RunLeaseResponse(
            step_batch=dispatch_pb2.StepBatch(
                first_step=first + job.first_step_offset,
                steps=job.program.steps[first : first + BATCH],
            )
        )
