"""Whether both sides mean the same by the same bytes: the planner's contract, by reflection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import grpc
from ditplan.v1 import generation_pb2, monitor_pb2, planner_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from planner.cli.checkup.finding import Finding, failed, ok, skipped, warning
from planner.cli.checkup.service import CALL_SECONDS

_SHOWN = 4
# What a name of the contract is on the wire.
_Meaning = tuple[int, int, int, str]
_Contract = dict[str, _Meaning]


def check_contract(channel: grpc.Channel) -> Finding:
    own = _own()
    try:
        theirs = _theirs(channel)
    except (grpc.RpcError, DecodeError) as error:
        text = error.details() if isinstance(error, grpc.RpcError) else str(error)
        remedy = "something between may not pass on streams: call the planner itself"
        return skipped("contract", f"reflection does not answer: {text}", remedy)
    changed = [name for name in own if name in theirs and own[name] != theirs[name]]
    if changed:
        text = f"another meaning of {_some(changed)}"
        return failed("contract", text, "install the planner's version of ditplan here")
    missing = [name for name in own if name not in theirs]
    if missing:
        text = f"the planner does not know {_some(missing)}"
        return warning("contract", text, "it would ignore these: upgrade the planner")
    more = len(theirs.keys() - own.keys())
    newer = f"; the planner's has {more} names more" if more else ""
    return ok("contract", f"ditplan.v1, {len(own)} names alike{newer}")


def _own() -> _Contract:
    files: dict[str, FileDescriptorProto] = {}

    def add(file: FileDescriptor) -> None:
        if file.name not in files:
            files[file.name] = FileDescriptorProto()
            file.CopyToProto(files[file.name])
            for dependency in file.dependencies:
                add(dependency)

    for module in (planner_pb2, generation_pb2, monitor_pb2):
        add(module.DESCRIPTOR)
    return _names(files.values())


def _theirs(channel: grpc.Channel) -> _Contract:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    symbols = ("PlannerService", "GenerationService", "MonitorService")
    requests = [
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"ditplan.v1.{symbol}")
        for symbol in symbols
    ]
    files: dict[str, FileDescriptorProto] = {}
    for answer in stub.ServerReflectionInfo(iter(requests), timeout=CALL_SECONDS):
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.FromString(data)
            files[file.name] = file
    return _names(files.values())


def _names(files: Iterable[FileDescriptorProto]) -> _Contract:
    """Methods, fields and values of ditplan's public contract."""
    found: _Contract = {}
    for file in files:
        if file.package != "ditplan.v1":
            continue
        for service in file.service:
            for method in service.method:
                types = f"{method.input_type} {method.output_type}"
                streams = method.client_streaming, method.server_streaming
                found[f"{service.name}.{method.name}"] = (*streams, 0, types)
        for message in file.message_type:
            found |= dict(_fields(message, message.name))
        for enum in file.enum_type:
            found |= {value.name: (value.number, 0, 0, "") for value in enum.value}
    return found


def _fields(message: DescriptorProto, path: str) -> Iterator[tuple[str, _Meaning]]:
    for field in message.field:
        yield f"{path}.{field.name}", (field.number, field.type, field.label, field.type_name)
    for nested in message.nested_type:
        yield from _fields(nested, f"{path}.{nested.name}")


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
