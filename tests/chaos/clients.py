"""Clients that create, watch, drop, cancel and time out, and what each knows of its generation."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from ditplan.v1 import generation_pb2, generation_pb2_grpc
from ditplan.v1.generation_pb2 import GenerationEvent, GenerationSpec

T = TypeVar("T")
TRANSIENT = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    # Too many are queued, or no executor is connected for the moment.
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
)
CALL_SECONDS = 10.0
# Executors start anew in some seconds, on a machine with other work in many.
PATIENCE_SECONDS = 240.0
OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
)


class Violation(Exception):
    """The service broke a promise; the message says which."""


@dataclass
class Story:
    """One accepted generation as its client saw it."""

    name: str
    spec: GenerationSpec
    events: list[GenerationEvent] = field(default_factory=list)
    cancelled: bool = False
    final: generation_pb2.Generation | None = None
    picture: bytes = b""

    @property
    def state(self) -> str:
        assert self.final is not None
        kind = generation_pb2.GenerationState.Name(self.final.state)
        return kind.removeprefix("GENERATION_STATE_")


class Client:
    """Follows one generation after the other to its end, through whatever happens meanwhile."""

    def __init__(self, address: str, seed: int) -> None:
        self._chance = random.Random(seed)
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._seed = seed
        self._count = 0
        self.dropped = 0

    def close(self) -> None:
        self._channel.close()

    def story(self, spec: GenerationSpec) -> Story:
        """Creates and follows to the end.

        Raises:
            Violation: something was lost, doubled or never came.
        """
        self._count += 1
        request = generation_pb2.CreateGenerationRequest(
            request_id=f"client-{self._seed}-{self._count}", spec=spec
        )
        if self._chance.random() < 0.2:
            # Given up before the answer can come; the id makes the next try the same.
            self._once(lambda: self._stub.CreateGeneration(request, timeout=0.005))
        made = self._insist(lambda: self._stub.CreateGeneration(request, timeout=CALL_SECONDS))
        again = self._insist(lambda: self._stub.CreateGeneration(request, timeout=CALL_SECONDS))
        story = Story(made.generation.name, spec)
        if again.generation.name != story.name:
            raise Violation(f"{request.request_id} made {story.name} and {again.generation.name}")
        plan = self._chance.choices(("follow", "cancel", "slow"), (6, 1, 1))[0]
        self._follow(story, plan)
        story.final = self._insist(
            lambda: self._stub.GetGeneration(
                generation_pb2.GetGenerationRequest(name=story.name), timeout=CALL_SECONDS
            )
        ).generation
        self._check(story)
        if story.state == "SUCCEEDED":
            story.picture = self._insist(lambda: self._read(story))
        return story

    def _follow(self, story: Story, plan: str) -> None:
        """Reads every event, over as many streams as it takes."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not self._is_over(story):
            if time.monotonic() > give_up_at:
                raise Violation(f"{story.name} did not end within {PATIENCE_SECONDS:g} s")
            request = generation_pb2.WatchGenerationRequest(
                name=story.name, after_sequence=len(story.events)
            )
            call: Any = self._stub.WatchGeneration(request, timeout=30)
            try:
                for response in call:
                    self._take(story, response.event)
                    if plan == "slow":
                        time.sleep(0.05)
                    if plan == "cancel" and len(story.events) == 5:
                        self._cancel(story)
                    if self._chance.random() < 0.01:
                        self.dropped += 1
                        break
            except grpc.RpcError as error:
                if error.code() not in TRANSIENT:  # type: ignore[attr-defined]
                    raise Violation(f"WatchGeneration: {error}") from None
                time.sleep(0.1)
            finally:
                call.cancel()

    def _take(self, story: Story, event: GenerationEvent) -> None:
        if event.sequence != len(story.events) + 1:
            raise Violation(
                f"{story.name}: event {event.sequence} came behind {len(story.events)} events"
            )
        if self._is_over(story):
            raise Violation(f"{story.name}: an event came behind the last one")
        story.events.append(event)

    def _is_over(self, story: Story) -> bool:
        return bool(story.events) and story.events[-1].HasField("finished")

    def _cancel(self, story: Story) -> None:
        request = generation_pb2.CancelGenerationRequest(name=story.name)
        for _ in range(2):
            self._insist(lambda: self._stub.CancelGeneration(request, timeout=CALL_SECONDS))
        story.cancelled = True

    def _check(self, story: Story) -> None:
        assert story.final is not None
        if story.state not in ("SUCCEEDED", "FAILED", "CANCELLED"):
            raise Violation(f"{story.name} is {story.state} behind its last event")
        if story.state != "SUCCEEDED":
            return
        last = [event.step.step for event in _of_last_attempt(story.events)]
        if last != list(range(len(story.final.record.steps))):
            raise Violation(f"{story.name}: its last attempt told of steps {last}")

    def _read(self, story: Story) -> bytes:
        assert story.final is not None
        artifact = next(a for a in story.final.artifacts if a.name == "image.png")
        name, data = f"{story.name}/artifacts/{artifact.name}", b""
        half = artifact.size_bytes // 2
        for offset in (0, half):
            request = generation_pb2.ReadArtifactRequest(name=name, offset=offset)
            data = data[:offset]
            for response in self._stub.ReadArtifact(request, timeout=CALL_SECONDS):
                data += response.data
        return data

    def _insist(self, call: Callable[[], T]) -> T:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._once(call)
            if answer is not None:
                return answer
            if time.monotonic() > give_up_at:
                raise Violation(f"no answer within {PATIENCE_SECONDS:g} s")
            time.sleep(self._chance.uniform(0.05, 0.3))

    def _once(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in TRANSIENT:  # type: ignore[attr-defined]
                raise Violation(str(error)) from None
            return None


def _of_last_attempt(events: list[GenerationEvent]) -> Iterator[GenerationEvent]:
    """The steps behind the last start."""
    starts = [i for i, event in enumerate(events) if event.HasField("started")]
    return (event for event in events[starts[-1] :] if event.HasField("step"))
