"""Sends hostile requests to a planner and tells what no request may cause."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.processes import memory_mib
from tests.hostile.requests import Hostile, hostile, methods

CALL_SECONDS = 3.0
# Of those that wait for something to happen.
WAIT_SECONDS = 0.3
# On top of it, for an answer to a call that was given up.
SLACK_SECONDS = 5.0
MOST_GROWTH_MB = 300.0
SENDERS = 4
FORBIDDEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass
class Verdict:
    codes: Counter[str] = field(default_factory=Counter)
    worst_seconds: float = 0.0
    growth_mb: float = 0.0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Credential:
    """What a call carries, and the services that it opens; None: it opens none."""

    header: str
    opens: tuple[str, ...] | None = None

    def allows(self, code: grpc.StatusCode, method: str) -> bool:
        """Whether a call with it may end so, whatever else is wrong with the call."""
        if code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
            return True
        if self.opens is None:
            return code is grpc.StatusCode.UNAUTHENTICATED
        denied = code is grpc.StatusCode.PERMISSION_DENIED
        return denied != (method.split("/")[1].rpartition(".")[2] in self.opens)


def attack(
    address: str,
    process: int,
    *,
    requests: int,
    seed: int,
    credentials: Sequence[Credential] = (),
) -> Verdict:
    """``process``: the planner's, to see its memory. ``credentials``: each call has one of them."""
    verdict, before = Verdict(), memory_mib(process)
    each = -(-requests // SENDERS)
    with ThreadPoolExecutor(SENDERS) as pool:
        for codes, worst, findings in pool.map(
            lambda sender: _send(address, each, seed + sender, credentials), range(SENDERS)
        ):
            verdict.codes += codes
            verdict.worst_seconds = max(verdict.worst_seconds, worst)
            verdict.findings += findings
    verdict.growth_mb = memory_mib(process) - before
    if verdict.growth_mb > MOST_GROWTH_MB:
        verdict.findings.append(f"memory grew by {verdict.growth_mb:.0f} MB")
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            verdict.findings.append("the planner serves no more")
    return verdict


def _send(
    address: str, requests: int, seed: int, credentials: Sequence[Credential]
) -> tuple[Counter[str], float, list[str]]:
    choices, known = random.Random(seed), methods()
    codes: Counter[str] = Counter()
    worst, findings = 0.0, []
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel(address, options=options) as channel:
        for number in range(requests):
            request = hostile(choices, known)
            began = time.monotonic()
            credential = choices.choice(credentials) if credentials else None
            code = _call(channel, request, credential)
            seconds = time.monotonic() - began
            worst = max(worst, seconds)
            codes[code.name] += 1
            astray = credential is not None and not credential.allows(code, request.method)
            if astray or code in FORBIDDEN or seconds > CALL_SECONDS + SLACK_SECONDS:
                findings.append(
                    f"{request.method} answered {code.name} after {seconds:.1f} s "
                    f"(sender {seed}, request {number})"
                )
    return codes, worst, findings


def _call(
    channel: grpc.Channel, request: Hostile, credential: Credential | None
) -> grpc.StatusCode:
    """The status of one call; streams are read to their end, or until time is up."""
    header = credential.header if credential else ""
    metadata = (("authorization", header),) if header else ()
    try:
        if request.takes_stream and request.gives_stream:
            answers: Any = channel.stream_stream(request.method)(
                iter(request.messages), timeout=WAIT_SECONDS, metadata=metadata
            )
        elif request.takes_stream:
            channel.stream_unary(request.method)(
                iter(request.messages), timeout=CALL_SECONDS, metadata=metadata
            )
            return grpc.StatusCode.OK
        elif request.gives_stream:
            answers = channel.unary_stream(request.method)(
                request.messages[0], timeout=WAIT_SECONDS, metadata=metadata
            )
        else:
            timeout = WAIT_SECONDS if request.method.endswith("AcquireLease") else CALL_SECONDS
            channel.unary_unary(request.method)(
                request.messages[0], timeout=timeout, metadata=metadata
            )
            return grpc.StatusCode.OK
        for _ in _first(answers):
            pass
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]
        return code
    return grpc.StatusCode.OK


def _first(answers: Any) -> Iterator[Any]:
    """A few of them: some streams have no end of their own."""
    for number, answer in enumerate(answers):
        yield answer
        if number == 3:
            answers.cancel()
