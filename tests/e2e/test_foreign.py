"""Clients that know the contract at most: grpcurl, reflection alone, plain grpcio by the stubs.

Each is a process of its own into which neither planner nor executor can be imported.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import pytest
from ditplan.v1 import generation_pb2, generation_pb2_grpc

from tests.e2e.processes import ENVIRONMENT, Service, eventually

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "docs" / "clients" / "generate.py"
MODEL = "black-forest-labs/FLUX.1-dev"
_BIN = Path(sys.executable).parent
GRPCURL = shutil.which("grpcurl", path=f"{_BIN}:{ENVIRONMENT.get('PATH', '')}")

Start = Callable[..., Service]

# -S leaves out the .pth file by which a development install adds the repository to the path.
_ALONE = """\
import importlib.util, runpy, sys
path, file, *arguments = sys.argv[1:]
sys.path += path.split(":")
for name in ("planner", "executor"):
    assert importlib.util.find_spec(name) is None, name
sys.argv = [file, *arguments]
runpy.run_path(file, run_name="__main__")
"""


def alone(path: Sequence[Path], file: Path, *arguments: object) -> subprocess.Popen[str]:
    """Runs a file in a process that has the installed packages, and else only these paths."""
    paths = ":".join(map(str, (*path, sysconfig.get_path("purelib"))))
    command = [sys.executable, "-I", "-S", "-c", _ALONE, paths, str(file), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A directory with nothing but a copy of the contract."""
    shutil.copytree(ROOT / "proto" / "ditplan", tmp_path / "stubs" / "ditplan")
    return tmp_path / "stubs"


def test_the_documented_client_draws_a_picture_across_a_restart_of_the_planner(
    start_planner: Start, start_executor: Start, checkpoint: Path, stubs: Path, tmp_path: Path
) -> None:
    planner = start_planner()
    executor = start_executor(planner)
    executor.process.send_signal(signal.SIGSTOP)
    out = tmp_path / "picture.png"
    client = alone([stubs], CLIENT, planner.address, checkpoint, "a red circle", out)
    with grpc.insecure_channel(planner.address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        eventually(
            lambda: stub.ListGenerations(generation_pb2.ListGenerationsRequest()).generations
        )
    planner.kill()
    start_planner(planner.address)
    executor.process.send_signal(signal.SIGCONT)
    said, errors = client.communicate(timeout=60)

    assert client.returncode == 0, errors
    *steps, last = said.splitlines()
    assert [line.partition(":")[0] for line in steps] == [f"step {step}" for step in range(4)]
    assert last == f"{out}: image/png, 4 steps"
    assert out.read_bytes().startswith(b"\x89PNG")


def test_the_documented_client_says_every_fault_of_its_request(
    start_planner: Start, stubs: Path, tmp_path: Path
) -> None:
    planner = start_planner()
    for model, prompt, code, faults in (
        ("nobody/knows", "", "INVALID_ARGUMENT (", ["  spec.prompt: "]),
        ("nobody/knows", "a hill", "INVALID_ARGUMENT (UNKNOWN_MODEL): ", ["  spec.model: "]),
        (MODEL, "a hill", "FAILED_PRECONDITION (NO_MATCHING_EXECUTOR): no executor is ", []),
    ):
        client = alone([stubs], CLIENT, planner.address, model, prompt, tmp_path / "none.png")
        _, errors = client.communicate(timeout=30)
        assert client.returncode == 1
        first, *rest = errors.splitlines()
        assert first.startswith(code), errors
        assert [line[: line.index(": ") + 2] for line in rest] == faults
    assert not (tmp_path / "none.png").exists()


_REFLECTING = """\
import json, sys
import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
pool = descriptor_pool.DescriptorPool(database)
service = pool.FindServiceByName("ditplan.v1.PlannerService")
method = service.FindMethodByName("CompilePlan")
ask, answer = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
call = channel.unary_unary(
    f"/{service.full_name}/{method.name}",
    request_serializer=ask.SerializeToString,
    response_deserializer=answer.FromString,
)
request = json_format.ParseDict(json.loads(sys.argv[2]), ask())
said = {"services": list(database.get_services()), "methods": [m.name for m in service.methods]}
said["answer"] = json_format.MessageToDict(call(request, timeout=10), descriptor_pool=pool)
print(json.dumps(said))
"""


def test_reflection_is_all_that_a_client_needs(start_planner: Start, tmp_path: Path) -> None:
    planner = start_planner()
    script = tmp_path / "reflecting.py"
    script.write_text(_REFLECTING)
    request = json.dumps({"model": MODEL, "num_inference_steps": 5})
    client = alone([], script, planner.address, request)
    said, errors = client.communicate(timeout=30)
    assert client.returncode == 0, errors
    found = json.loads(said)
    assert "ditplan.v1.GenerationService" in found["services"]
    assert found["methods"] == ["CompilePlan", "CompilePlans", "ListModels"]
    assert len(found["answer"]["plan"]["program"]["steps"]) == 5


@pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not on the path")
def test_grpcurl_lists_describes_calls_and_shows_errors(start_planner: Start) -> None:
    planner = start_planner()

    def grpcurl(
        *arguments: str, data: object = None, flags: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        given = [] if data is None else ["-d", json.dumps(data)]
        command = [str(GRPCURL), "-plaintext", "-max-time", "20", *flags, *given]
        return subprocess.run(
            [*command, planner.address, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    services = grpcurl("list").stdout.split()
    assert {"ditplan.v1.GenerationService", "grpc.health.v1.Health"} <= set(services)
    assert (
        "ditplan.v1.PlannerService.CompilePlan"
        in grpcurl("list", "ditplan.v1.PlannerService").stdout
    )
    for name in services:
        assert f"{name} is a service:" in grpcurl("describe", name).stdout
    described = grpcurl("describe", "ditplan.v1.GenerationEvent").stdout
    assert ".ditplan.v1.StepOutcome step = 7;" in described

    request = {"model": MODEL, "num_inference_steps": 5}
    called = grpcurl("ditplan.v1.PlannerService/CompilePlan", data=request)
    assert called.returncode == 0, called.stderr
    assert len(json.loads(called.stdout)["plan"]["program"]["steps"]) == 5
    once = grpcurl("ditplan.v1.MonitorService/WatchStatus", data={"once": True})
    assert json.loads(once.stdout)["version"].startswith("ditplan ")

    wrong = {"model": MODEL, "config": "cache_config:\n  Fn_compute_block: 1\n"}
    refused = grpcurl("ditplan.v1.PlannerService/CompilePlan", data=wrong, flags=["-format-error"])
    assert refused.returncode != 0
    status = json.loads(refused.stderr)

    assert (status["code"], len(status["details"])) == (3, 3)
    info, bad, diagnostic = status["details"]
    assert (info["reason"], info["domain"]) == ("INVALID_CONFIG", "ditplan")
    [fault] = bad.get("fieldViolations", bad.get("field_violations"))
    assert fault["field"] == "cache_config.Fn_compute_block"
    # A type of the contract: grpcurl has it from the planner's reflection.
    assert diagnostic["hint"] == "did you mean Fn_compute_blocks?"
