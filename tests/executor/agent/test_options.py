"""The options of `python -m executor`, as they are read before torch is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2

import executor.__main__ as command
from executor.agent.settings import Settings, Size
from tests.executor.programs import program

REQUIRED = ("--planner", "127.0.0.1:1", "--model", "/no/such/model")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of every call, in which nothing is started."""
    found: list[Settings] = []
    monkeypatch.setattr(command, "_lead", lambda settings, *_: found.append(settings))
    # The logs of this process are the tests'.
    monkeypatch.setattr("executor.agent.telemetry.logs.configure", lambda level: None)
    return found


def _call(*arguments: str) -> Result:
    return CliRunner().invoke(command.main, [*REQUIRED, *arguments])


def _plan(file: Path, **topology: int) -> str:
    message = program("FF")
    for name, value in topology.items():
        setattr(message.topology, name, value)
    plan = plan_pb2.Plan(plan_id=plan_id(message), program=message)
    file.write_bytes(plan.SerializeToString())
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ((), (False, False)),
        (("--compile", "--dit-cpu-offload"), (True, True)),
        (("--enable-torch-compile", "--dit-cpu-offload", "false"), (True, False)),
        (("--compile", "false", "--dit-cpu-offload=true"), (False, True)),
    ],
)
def test_values_are_spelled_as_sglang_spells_them(
    read: list[Settings], arguments: tuple[str, ...], values: tuple[bool, bool]
) -> None:
    assert _call(*arguments).exit_code == 0
    assert (read[0].compiled, read[0].dit_cpu_offload) == values


def test_sizes(read: list[Settings], tmp_path: Path) -> None:
    sizes = ("--warmup", "--warmup-resolutions", "64x32, 832x480x81,64x32")
    assert _call("--plan", _plan(tmp_path / "plan"), *sizes).exit_code == 0
    assert read[0].warmup == (Size(64, 32), Size(832, 480, 81))
    assert [str(size) for size in read[0].warmup] == ["64x32", "832x480x81"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--warmup",), "together with --warmup-resolutions and --plan"),
        (("--warmup", "--warmup-resolutions", "64x64"), "together with --warmup-resolutions and"),
        (("--warmup-resolutions", "64x64"), "together with --warmup-resolutions and --plan"),
        (("--warmup", "--warmup-resolutions", "64"), "'64' is not WIDTHxHEIGHT"),
        (("--warmup", "--warmup-resolutions", "0x64"), "'0x64' is not WIDTHxHEIGHT"),
        (("--warmup", "--warmup-resolutions", ",".join(["1x1"] * 17)), "17 sizes are more than 16"),
        (("--vae-cpu-offload", "maybe"), "'maybe' is not a valid boolean"),
        (("--plan", "/no/such/plan"), "/no/such/plan: No such file or directory"),
        (("--plan", __file__), "holds no plan"),
    ],
)
def test_misuse_is_said(read: list[Settings], arguments: tuple[str, ...], fault: str) -> None:
    result = _call(*arguments)
    assert (result.exit_code, read) == (2, [])
    assert fault in result.stderr


def test_a_plan_says_how_the_model_is_split(read: list[Settings], tmp_path: Path) -> None:
    file = _plan(tmp_path / "plan")
    assert _call("--plan", file).exit_code == 0
    assert read[0].plan == program("FF")
    assert "--plan says" in _call("--plan", file, "--tp-size", "1").stderr
    split = _plan(tmp_path / "split", tp_size=2, world_size=2)
    assert "2 does not divide the 1 ranks" in _call("--plan", split).stderr
    shared = _plan(tmp_path / "shared", ulysses_size=2, world_size=2)
    assert "it is for 2 ranks, the executor has 1" in _call("--plan", shared).stderr


def test_encoders_are_shared_once(read: list[Settings]) -> None:
    names = " text_encoder_2,text_encoder, text_encoder_2,"
    assert _call("--extra-parallel-modules", names).exit_code == 0
    assert read[0].extra_parallel_modules == ("text_encoder", "text_encoder_2")


def test_an_edited_plan_is_no_plan(read: list[Settings], tmp_path: Path) -> None:
    plan = plan_pb2.Plan(plan_id="0" * 64, program=program("FF"))
    (tmp_path / "plan").write_bytes(plan.SerializeToString())
    assert "was damaged or edited" in _call("--plan", str(tmp_path / "plan")).stderr
