"""A client of a planner and an executor that are brought up for one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import grpc
from ditplan.v1 import executor_pb2, executor_pb2_grpc

from planner.cli.client import Client, connect
from planner.cli.local import local_service
from planner.codec import plan_to_proto
from planner.compile.compiler import Compilation
from planner.compile.request import Request
from planner.render.words import layers_in_words

_ANSWER_SECONDS = 10.0


@contextmanager
def local_client(model: str, compiled: Compilation, placement: Sequence[str]) -> Iterator[Client]:
    """``compiled`` has a program, for which the executor loads its model with these options.

    Raises:
        planner.cli.local.LocalServiceError: they do not come up.
    """
    assert compiled.program is not None
    assert compiled.estimate is not None
    plan = plan_to_proto(compiled.program, compiled.estimate)
    size = plan.program.topology.world_size
    ranks = f" of {size} ranks" if size > 1 else ""
    click.echo(f"starting a planner and an executor{ranks} ...", err=True)
    options = [*placement]
    if "--warmup" in placement:
        options += ["--warmup-resolutions", _size(compiled.request)]
    if "--lora" in placement:
        # Nobody else is there to mistake it for the model without.
        options += ["--served-name", model]
    with local_service(model, plan, options) as service, connect(service.planner) as client:
        if compiled.layers:
            _list_layers(service.executor)
        yield client


def _size(request: Request) -> str:
    frames = [] if request.num_frames is None else [str(request.num_frames)]
    return "x".join([str(request.width), str(request.height), *frames])


def _list_layers(executor: str) -> None:
    """What the executor has quantized and what it has not, on standard error."""
    with grpc.insecure_channel(executor) as channel:
        stub = executor_pb2_grpc.ExecutorServiceStub(channel)
        held = stub.GetExecutor(executor_pb2.GetExecutorRequest(), timeout=_ANSWER_SECONDS)
    texts = layers_in_words(
        (x.component, x.name, x.count, x.quant_type or x.reason) for x in held.layers
    )
    click.echo("".join(f"{text}\n" for text in texts), err=True, nl=False)
