"""The planner's side of the dispatch protocol, which does what a test tells it to."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
from ditplan.dispatch.v1 import dispatch_pb2, dispatch_pb2_grpc
from ditplan.dispatch.v1.dispatch_pb2 import RunLeaseRequest, RunLeaseResponse
from ditplan.identity import plan_id
from ditplan.v1 import generation_pb2, plan_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


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
    what it returns is answered, what it raises breaks the stream. ``before_attached`` gives what
    comes before the answer to an attach.
    """

    program: plan_pb2.Program
    spec: generation_pb2.GenerationSpec = field(default_factory=default_spec)
    name: str = "generations/1"
    epoch: int = 1
    plan_id: str = ""
    on_request: Callable[[RunLeaseRequest, int], RunLeaseResponse | None] = lambda request, n: None
    before_attached: Callable[[], Iterable[RunLeaseResponse]] = tuple
    upload_status: list[grpc.StatusCode] = field(default_factory=list)
    # Their refusals come with RetryInfo.
    retry_later: bool = False
    damaged_uploads: int = 0

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

    @property
    def assignment(self) -> dispatch_pb2.Assignment:
        return dispatch_pb2.Assignment(
            plan_id=self.plan_id or plan_id(self.program), program=self.program, spec=self.spec
        )


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
            return dispatch_pb2.AcquireLeaseResponse(lease=job.lease, assignment=job.assignment)
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
        yield from job.before_attached()
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
            _refuse(context, job.upload_status.pop(0), retry_later=job.retry_later)
        job.chunk_sizes += [len(request.data) for request in requests]
        data = b"".join(request.data for request in requests)
        job.artifacts[header.name] = data
        job.media_types[header.name] = header.media_type
        damaged = job.damaged_uploads > 0
        job.damaged_uploads -= damaged
        sha256 = hashlib.sha256(data[:-1] if damaged else data).hexdigest()
        return dispatch_pb2.UploadArtifactResponse(
            artifact=generation_pb2.Artifact(name=header.name, sha256=sha256)
        )


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode, *, retry_later: bool) -> NoReturn:
    status = status_pb2.Status(code=code.value[0], message="scripted")
    if retry_later:
        status.details.add().Pack(error_details_pb2.RetryInfo())
    context.abort_with_status(rpc_status.to_status(status))
