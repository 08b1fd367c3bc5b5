"""The edge between values and messages: nothing is lost, and nothing foreign gets in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest
from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from planner.codec import (
    MalformedProgramError,
    diagnostics_from_proto,
    diagnostics_to_proto,
    estimate_from_proto,
    plan_to_proto,
    program_from_proto,
    program_to_proto,
    received_program,
)
from planner.compile.compiler import compile_config
from planner.compile.plan import (
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Column,
    ComponentQuantization,
    Dmd,
    Estimate,
    FoCa,
    Op,
    OpKind,
    Placement,
    PrecisionRule,
    Program,
    Reason,
    TaylorSeer,
    Topology,
)
from planner.compile.request import Request
from planner.diagnostics import Diagnostic, Severity
from planner.models.facts import Architecture, BlockList, Target
from planner.models.resolve import from_name

names = st.text("abc_é", min_size=1, max_size=5)
counts = st.integers(0, 2**32 - 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
targets = st.builds(
    Target,
    name=names,
    transformer_class=names,
    block_lists=st.lists(st.builds(BlockList, names, counts), max_size=3).map(tuple),
    num_attention_heads=counts,
    attention_head_dim=counts,
)
architectures = st.builds(Architecture, names, names, st.lists(targets, max_size=2).map(tuple))
forecasts = (
    st.builds(TaylorSeer, counts) | st.just(FoCa()) | st.builds(Dmd, counts, counts, numbers, names)
)
columns = st.builds(
    Column,
    target=names,
    branch=st.sampled_from(Branch),
    block_lists=st.lists(names, max_size=2).map(tuple),
    fn_compute_blocks=counts,
    bn_compute_blocks=counts,
    calibrator=st.none()
    | st.builds(Calibrator, st.sampled_from(CacheType), st.none() | forecasts, st.booleans()),
)
rules = st.builds(
    AdaptiveRule, numbers, st.none() | counts, st.none() | counts, st.none() | numbers
)
reasons = st.sampled_from(Reason)
ops = st.builds(
    Op, st.sampled_from([OpKind.FULL, OpKind.CACHED]), reasons, refresh=st.booleans()
) | st.builds(Op, st.just(OpKind.ADAPTIVE), reasons, rules, st.booleans())


some_names = st.lists(names, max_size=2).map(tuple)
placements = st.builds(
    Placement,
    names,
    some_names,
    st.lists(st.builds(ComponentQuantization, names, names, some_names), max_size=2).map(tuple),
    st.lists(st.builds(PrecisionRule, names, names), max_size=2).map(tuple),
)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    known = draw(st.lists(columns, max_size=3))
    row = st.tuples(*[st.none() | ops for _ in known])
    return Program(
        model=draw(architectures),
        columns=tuple(known),
        steps=tuple(draw(st.lists(row, min_size=1, max_size=5))),
        topology=draw(
            st.builds(
                Topology,
                *[counts] * 4,
                *[st.booleans()] * 3,
                names,
                st.booleans(),
                st.lists(names, max_size=2).map(tuple),
                st.sampled_from((1, 2)),
            )
        ),
        placement=draw(placements),
        attention_backend=draw(st.just("") | names),
    )


@given(programs())
def test_a_program_comes_back_as_it_went(program: Program) -> None:
    message = program_to_proto(program)
    wire = plan_pb2.Program.FromString(message.SerializeToString())
    assert program_from_proto(wire, program.model) == program
    assert received_program(wire) == program


@given(programs())
def test_a_program_survives_json_with_its_id(program: Program) -> None:
    message = program_to_proto(program)
    again = json_format.ParseDict(
        json.loads(json.dumps(json_format.MessageToDict(message))), plan_pb2.Program()
    )
    assert plan_id(again) == plan_id(message)


def test_every_field_of_the_values_has_its_field_in_the_contract() -> None:
    for value, message in (
        (AdaptiveRule, plan_pb2.AdaptiveRule),
        (Dmd, plan_pb2.Dmd),
        (FoCa, plan_pb2.FoCa),
        (Column, plan_pb2.Column),
        (Op, plan_pb2.Op),
        (Topology, plan_pb2.Topology),
        (Placement, plan_pb2.Placement),
        (Target, plan_pb2.Target),
        (Architecture, plan_pb2.Model),
        (Estimate, plan_pb2.Estimate),
    ):
        expected = {field.name for field in message.DESCRIPTOR.fields}
        assert {field.name for field in dataclasses.fields(value)} == expected


def test_every_word_of_the_contract_is_known() -> None:
    for enum, message in ((OpKind, plan_pb2.OpKind), (Reason, plan_pb2.Reason)):
        prefix = message.keys()[0].removesuffix("UNSPECIFIED")
        assert {prefix + member.name for member in enum} == set(message.keys()[1:])
    assert all(reason.meaning for reason in Reason)


def test_a_plan_names_its_program_and_its_estimate() -> None:
    program = received_program(message())
    plan = plan_to_proto(program, Estimate(2, 8))
    assert plan.plan_id == plan_id(plan.program)
    assert received_program(plan.program) == program
    assert estimate_from_proto(plan.estimate) == Estimate(2, 8)


def test_the_estimate_is_no_part_of_the_identity() -> None:
    program = received_program(message())
    ids = {plan_to_proto(program, Estimate(low, 8)).plan_id for low in range(4)}
    assert len(ids) == 1


def test_diagnostics_come_back_as_they_went() -> None:
    found = [
        Diagnostic(severity, "code", "a.b[0]", "message", "hint", 3, 4) for severity in Severity
    ]
    assert diagnostics_from_proto(diagnostics_to_proto(found)) == found


def message() -> plan_pb2.Program:
    facts = from_name("black-forest-labs/FLUX.1-dev")
    config = "cache_config: {max_warmup_steps: 2, enable_taylorseer: true}"
    program = compile_config(config, facts, Request(num_inference_steps=4)).program
    assert program is not None
    return program_to_proto(program)


def turn_ops_round(program: plan_pb2.Program) -> None:
    """Says the same with the ops the other way round."""
    program.ops.reverse()
    for step in program.steps:
        step.ops[0] = len(program.ops) + 1 - step.ops[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.ClearField("steps"), "num_inference_steps: 4 for 0 steps"),
        (lambda m: m.steps.add(ops=[1]), "num_inference_steps: 4 for 5 steps"),
        (lambda m: m.steps[1].ops.append(1), "steps[1].ops: [1, 1] does not fit 1 columns"),
        (lambda m: m.steps[1].ClearField("ops"), "steps[1].ops: [] does not fit"),
        (lambda m: m.steps[3].ops.__setitem__(0, 3), "steps[3].ops: [3] does not fit"),
        (lambda m: m.columns[0].ClearField("branch"), "columns[0].branch: 0 is no branch"),
        (lambda m: setattr(m.columns[0], "branch", 9), "columns[0].branch: 9 is no branch"),
        (
            lambda m: m.columns[0].calibrator.ClearField("cache_type"),
            "columns[0].calibrator.cache_type",
        ),
        (lambda m: m.ops[0].ClearField("kind"), "ops[0]: kind or reason"),
        (lambda m: setattr(m.ops[1], "reason", 99), "ops[1]: kind or reason"),
        (lambda m: m.ops[1].ClearField("adaptive"), "ops[1]: an op carries a rule"),
        (lambda m: m.ops[0].adaptive.SetInParent(), "ops[0]: an op carries a rule"),
        # Forms in which no program is written: the same work under another id
        (lambda m: m.ops.add().CopyFrom(m.ops[0]), "ops: not in the form"),
        (turn_ops_round, "ops: not in the form"),
        (lambda m: m.ClearField("topology"), "topology: not in the form"),
        (lambda m: m.ClearField("placement"), "placement: not in the form"),
        (
            lambda m: m.MergeFromString(b"\xc2\x3e\x01x"),
            "program: holds fields that are not known",
        ),
    ],
)
def test_a_malformed_program_is_refused_by_field(
    change: Callable[[plan_pb2.Program], object], says: str
) -> None:
    malformed = message()
    change(malformed)
    with pytest.raises(MalformedProgramError) as refused:
        received_program(malformed)
    assert str(refused.value).startswith(says)


def test_a_program_for_another_architecture_is_refused() -> None:
    other = message()
    other.model.targets[0].num_attention_heads = 23
    with pytest.raises(MalformedProgramError, match=r"^model: "):
        program_from_proto(other, from_name("black-forest-labs/FLUX.1-dev").architecture)


@given(st.binary(max_size=60))
def test_any_message_is_a_program_or_malformed(data: bytes) -> None:
    hostile = message()
    try:
        hostile.MergeFromString(data)
    except Exception:  # protobuf's DecodeError, by whichever implementation
        return
    try:
        program = received_program(hostile)
    except MalformedProgramError:
        return
    assert plan_id(program_to_proto(program)) == plan_id(hostile)
