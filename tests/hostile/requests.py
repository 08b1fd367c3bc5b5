"""Requests that no well-meaning client sends: bytes that are no message, and messages that are."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ditplan.dispatch.v1 import dispatch_pb2
from ditplan.v1 import executor_pb2, generation_pb2, planner_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from planner.codec import program_to_proto
from planner.compile.compiler import compile_config
from planner.compile.request import Request
from planner.models.resolve import from_name
from tests.fuzz.campaign import examples
from tests.fuzz.mutations import SPECIALS, mutated

_FILES = (planner_pb2, generation_pb2, dispatch_pb2)
_NUMBERS = (0, 1, -1, 2, 7, 100, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-308, 1e308, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "../../etc/passwd",
        "generations/",
        "generations/0",
        "a" * 600,
        "\u202e\u0000",
    ),
    *("black-forest-labs/FLUX.1-dev", "generations/x/artifacts/../../x", "' OR 1=1 --", "é" * 3000),
    *("x" * 200_000, "\n" * 50, "transformer", "{}", "image.png", "native", "int8_weight_only"),
)
_MODEL = Path(__file__).parents[2] / "deploy" / "demo" / "model"
_MOST_ITEMS = 6
_DEEPEST = 6


@dataclass(frozen=True)
class Hostile:
    """What is sent in one call: one message, or several where the method takes a stream."""

    method: str
    takes_stream: bool
    gives_stream: bool
    messages: tuple[bytes, ...]


def methods() -> list[MethodDescriptor]:
    return [
        method
        for file in _FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def hostile(choices: random.Random, known: Sequence[MethodDescriptor]) -> Hostile:
    method = choices.choice(known)
    count = choices.randint(0, 4) if method.client_streaming else 1
    return Hostile(
        method=f"/{method.containing_service.full_name}/{method.name}",
        takes_stream=method.client_streaming,
        gives_stream=method.server_streaming,
        messages=tuple(_bytes(method.input_type, choices) for _ in range(count)),
    )


def _bytes(kind: Any, choices: random.Random) -> bytes:
    shape = choices.random()
    if shape < 0.1:
        return choices.randbytes(choices.choice((0, 1, 5, 50, 500, 5000)))
    if shape < 0.12:
        # A message inside a message inside a message ...
        deep = b""
        for _ in range(choices.choice((10, 90, 150, 2000))):
            deep = b"\x12" + _varint(len(deep)) + deep
        return deep
    good = [message for message in well_meant() if message.DESCRIPTOR is kind]
    if good and shape < 0.7:
        message = GetMessageClass(kind)()
        message.CopyFrom(choices.choice(good))
        for _ in range(choices.randint(0, 2)):
            _spoil(message, choices)
    else:
        message = _message(kind, choices, 0)
    data = bytearray(message.SerializeToString())
    if shape > 0.9 and data:
        for _ in range(choices.randint(1, 4)):
            data[choices.randrange(len(data))] = choices.randrange(256)
    elif shape > 0.85:
        del data[choices.randrange(len(data) + 1) :]
    elif shape > 0.845:
        # Above what the service takes.
        data += b"\x7a" + _varint(9 << 20) + bytes(9 << 20)
    return bytes(data)


def _spoil(message: Any, choices: random.Random) -> None:
    """One hostile value, somewhere in a message that was well meant."""
    fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = choices.choice(fields)
    if field.is_repeated:
        if len(getattr(message, field.name)) and choices.random() < 0.3:
            message.ClearField(field.name)
        else:
            _append(message, field, choices, 1)
    elif not field.message_type:
        setattr(message, field.name, _value(field, choices))
    elif message.HasField(field.name) and choices.random() < 0.9:
        _spoil(getattr(message, field.name), choices)
    else:
        getattr(message, field.name).CopyFrom(_message(field.message_type, choices, 1))


@cache
def well_meant() -> list[Message]:
    """A good request of each kind that has more to it than a name."""
    spec = generation_pb2.GenerationSpec(
        model="black-forest-labs/FLUX.1-dev",
        prompt="a raccoon",
        config=examples()[0].decode(),
        num_inference_steps=28,
        seed=1,
        height=1024,
        width=1024,
    )
    compile_plan = planner_pb2.CompilePlanRequest(
        model=spec.model, config=spec.config, num_inference_steps=28, world_size=1
    )
    facts = from_name(spec.model)
    compiled = compile_config(spec.config, facts, Request(28))
    assert compiled.program is not None
    replayed = generation_pb2.GenerationSpec()
    replayed.CopyFrom(spec)
    replayed.program.CopyFrom(program_to_proto(compiled.program))
    lease = dispatch_pb2.Lease(generation="generations/0", epoch=1)
    return [
        compile_plan,
        planner_pb2.CompilePlansRequest(requests=[compile_plan] * 3),
        *(
            generation_pb2.CreateGenerationRequest(spec=each, queue_without_executor=True)
            for each in (spec, replayed)
        ),
        generation_pb2.GenerateRequest(spec=spec, queue_without_executor=True),
        generation_pb2.ListGenerationsRequest(page_size=3),
        dispatch_pb2.AcquireLeaseRequest(
            executor=executor_pb2.Executor(
                name="there",
                model="mine",
                world_size=1,
                device="cpu",
                dtype="float32",
                component_configs=[
                    executor_pb2.ComponentConfig(
                        path=str(path.relative_to(_MODEL)), json=path.read_text()
                    )
                    for path in (_MODEL / "model_index.json", *_MODEL.glob("*/*config.json"))
                ],
            )
        ),
        dispatch_pb2.RunLeaseRequest(attach=dispatch_pb2.Attach(lease=lease, executor="there")),
        dispatch_pb2.UploadArtifactRequest(
            header=dispatch_pb2.ArtifactHeader(
                lease=lease, name="image.png", media_type="image/png"
            )
        ),
    ]


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _message(kind: Any, choices: random.Random, depth: int) -> Message:
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if choices.random() < 0.4 or (field.message_type and depth >= _DEEPEST):
            continue
        if field.is_repeated:
            for _ in range(choices.randint(0, _MOST_ITEMS)):
                _append(message, field, choices, depth)
        elif field.message_type:
            inner = _message(field.message_type, choices, depth + 1)
            getattr(message, field.name).CopyFrom(inner)
        else:
            setattr(message, field.name, _value(field, choices))
    return message


def _append(message: Any, field: FieldDescriptor, choices: random.Random, depth: int) -> None:
    repeated = getattr(message, field.name)
    if field.message_type:
        repeated.append(_message(field.message_type, choices, depth + 1))
    else:
        repeated.append(_value(field, choices))


def _value(field: FieldDescriptor, choices: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return choices.randbytes(choices.choice((0, 10, 2000)))
            if field.name == "config" or choices.random() < 0.1:
                text = mutated(examples(), choices)
            else:
                text = choices.choice((*SPECIALS, *(each.encode() for each in _TEXTS)))
            return text.decode("utf-8", "ignore")
        case FieldDescriptor.CPPTYPE_BOOL:
            return choices.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return choices.choice(_FLOATS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return choices.choice((0, 1, 2, 99, 2**31 - 1, -1))
        case kind:
            return choices.choice([n for n in _NUMBERS if _fits(kind, n)])


def _fits(kind: int, number: int) -> bool:
    bits = 64 if kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64) else 32
    if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        return 0 <= number < 2**bits
    return -(2 ** (bits - 1)) <= number < 2 ** (bits - 1)
