"""Between programs, with what they should cost, and their messages."""

from __future__ import annotations

from ditplan.identity import plan_id
from ditplan.v1 import plan_pb2

from planner.codec.architecture import model_from_proto, model_to_proto
from planner.codec.cost import cost_from_proto, cost_to_proto
from planner.codec.placement import (
    placement_from_proto,
    placement_to_proto,
    topology_from_proto,
    topology_to_proto,
)
from planner.compile.plan import (
    AdaptiveRule,
    Branch,
    CacheType,
    Calibrator,
    Column,
    Dmd,
    Estimate,
    FoCa,
    Op,
    OpKind,
    Program,
    Reason,
    TaylorSeer,
)
from planner.models.facts import Architecture

_BRANCH = {
    Branch.COND: plan_pb2.BRANCH_COND,
    Branch.UNCOND: plan_pb2.BRANCH_UNCOND,
}
_KIND = {kind: plan_pb2.OpKind.Value(f"OP_KIND_{kind.name}") for kind in OpKind}
_REASON = {reason: plan_pb2.Reason.Value(f"REASON_{reason.name}") for reason in Reason}
_CACHE_TYPE = {
    CacheType.RESIDUAL: plan_pb2.CACHE_TYPE_RESIDUAL,
    CacheType.HIDDEN_STATES: plan_pb2.CACHE_TYPE_HIDDEN_STATES,
}
_FROM_BRANCH = {value: branch for branch, value in _BRANCH.items()}
_FROM_KIND = {value: kind for kind, value in _KIND.items()}
_FROM_REASON = {value: reason for reason, value in _REASON.items()}
_FROM_CACHE_TYPE = {value: cache_type for cache_type, value in _CACHE_TYPE.items()}


class MalformedProgramError(ValueError):
    """A program message that no compiler could have made; the message names the field."""


def plan_to_proto(program: Program, estimate: Estimate) -> plan_pb2.Plan:
    """The plan message, its id included."""
    message = program_to_proto(program)
    return plan_pb2.Plan(
        plan_id=plan_id(message),
        program=message,
        estimate=plan_pb2.Estimate(
            min_computed_steps=estimate.min_computed_steps,
            max_computed_steps=estimate.max_computed_steps,
            cost=None if estimate.cost is None else cost_to_proto(estimate.cost),
        ),
    )


def program_to_proto(program: Program) -> plan_pb2.Program:
    # Most cells hold one of few objects, so that few values are to be compared.
    cells = {id(op): op for step in program.steps for op in step}
    ops = list(dict.fromkeys(op for op in cells.values() if op is not None))
    position = {op: i for i, op in enumerate(ops, start=1)} | {None: 0}
    number = {key: position[op] for key, op in cells.items()}
    rows = [tuple([number[id(op)] for op in step]) for step in program.steps]
    steps = {row: plan_pb2.Step(ops=row) for row in dict.fromkeys(rows)}
    return plan_pb2.Program(
        model=model_to_proto(program.model),
        num_inference_steps=program.num_inference_steps,
        columns=[_column_to_proto(column) for column in program.columns],
        ops=[_op_to_proto(op) for op in ops],
        steps=[steps[row] for row in rows],
        topology=topology_to_proto(program.topology),
        placement=placement_to_proto(program.placement),
        attention_backend=program.attention_backend,
    )


def program_from_proto(message: plan_pb2.Program, architecture: Architecture) -> Program:
    """The program that a message holds, which must be for that architecture.

    Raises:
        MalformedProgramError: a field holds what no compiler writes, or the model differs.
    """
    if message.model != model_to_proto(architecture):
        raise MalformedProgramError("model: the program is for another model architecture")
    if not 1 <= len(message.steps) == message.num_inference_steps:
        raise MalformedProgramError(
            f"num_inference_steps: {message.num_inference_steps} for {len(message.steps)} steps"
        )
    columns = tuple(
        _column_from_proto(column, f"columns[{i}]") for i, column in enumerate(message.columns)
    )
    ops = tuple(_op_from_proto(op, f"ops[{i}]") for i, op in enumerate(message.ops))
    steps = []
    for i, step in enumerate(message.steps):
        if len(step.ops) != len(columns) or any(number > len(ops) for number in step.ops):
            raise MalformedProgramError(
                f"steps[{i}].ops: {list(step.ops)} does not fit "
                f"{len(columns)} columns and {len(ops)} ops"
            )
        steps.append(tuple(ops[number - 1] if number else None for number in step.ops))
    program = Program(
        model=architecture,
        columns=columns,
        steps=tuple(steps),
        topology=topology_from_proto(message.topology),
        placement=placement_from_proto(message.placement),
        attention_backend=message.attention_backend,
    )
    _refuse_other_forms(message, program)
    return program


def _refuse_other_forms(message: plan_pb2.Program, program: Program) -> None:
    """A program has one canonical form: another one would run as it, but under another id."""
    canonical = program_to_proto(program)
    if canonical.SerializeToString(deterministic=True) == message.SerializeToString(
        deterministic=True
    ):
        return
    given = {field.name: value for field, value in message.ListFields()}
    meant = {field.name: value for field, value in canonical.ListFields()}
    for name in given | meant:
        if given.get(name) != meant.get(name):
            raise MalformedProgramError(f"{name}: not in the form that a compiler writes")
    raise MalformedProgramError("program: holds fields that are not known here")


def received_program(message: plan_pb2.Program) -> Program:
    """The program of a plan that a planner sent, for whatever architecture it names.

    Raises:
        MalformedProgramError: a field holds what no compiler writes.
    """
    return program_from_proto(message, model_from_proto(message.model))


def estimate_from_proto(message: plan_pb2.Estimate) -> Estimate:
    cost = cost_from_proto(message.cost) if message.HasField("cost") else None
    return Estimate(message.min_computed_steps, message.max_computed_steps, cost)


def _column_to_proto(column: Column) -> plan_pb2.Column:
    message = plan_pb2.Column(
        target=column.target,
        branch=_BRANCH[column.branch],
        block_lists=column.block_lists,
        fn_compute_blocks=column.fn_compute_blocks,
        bn_compute_blocks=column.bn_compute_blocks,
        reuses_cond_diff=column.reuses_cond_diff,
    )
    if column.calibrator is not None:
        message.calibrator.CopyFrom(_calibrator_to_proto(column.calibrator))
    return message


def _calibrator_to_proto(calibrator: Calibrator) -> plan_pb2.Calibrator:
    message = plan_pb2.Calibrator(
        cache_type=_CACHE_TYPE[calibrator.cache_type], encoder=calibrator.encoder
    )
    match calibrator.forecast:
        case TaylorSeer(order):
            message.taylorseer_order = order
        case FoCa():
            message.foca.SetInParent()
        case Dmd(history, rank, ridge, svd_precision):
            message.dmd.history = history
            message.dmd.rank = rank
            message.dmd.ridge = ridge
            message.dmd.svd_precision = svd_precision
            message.dmd.SetInParent()
    return message


def _forecast_from_proto(message: plan_pb2.Calibrator) -> TaylorSeer | FoCa | Dmd | None:
    match message.WhichOneof("forecast"):
        case "taylorseer_order":
            return TaylorSeer(message.taylorseer_order)
        case "foca":
            return FoCa()
        case "dmd":
            dmd = message.dmd
            return Dmd(dmd.history, dmd.rank, dmd.ridge, dmd.svd_precision)
        case _:
            return None


def _column_from_proto(message: plan_pb2.Column, field: str) -> Column:
    if message.branch not in _FROM_BRANCH:
        raise MalformedProgramError(f"{field}.branch: {message.branch} is no branch")
    calibrator = None
    if message.HasField("calibrator"):
        cache_type = _FROM_CACHE_TYPE.get(message.calibrator.cache_type)
        if cache_type is None:
            raise MalformedProgramError(f"{field}.calibrator.cache_type: is missing")
        calibrator = Calibrator(
            cache_type=cache_type,
            forecast=_forecast_from_proto(message.calibrator),
            encoder=message.calibrator.encoder,
        )
    return Column(
        target=message.target,
        branch=_FROM_BRANCH[message.branch],
        block_lists=tuple(message.block_lists),
        fn_compute_blocks=message.fn_compute_blocks,
        bn_compute_blocks=message.bn_compute_blocks,
        calibrator=calibrator,
        reuses_cond_diff=message.reuses_cond_diff,
    )


def _op_to_proto(op: Op) -> plan_pb2.Op:
    message = plan_pb2.Op(kind=_KIND[op.kind], reason=_REASON[op.reason], refresh=op.refresh)
    if op.adaptive is not None:
        rule = op.adaptive
        message.adaptive.CopyFrom(
            plan_pb2.AdaptiveRule(
                residual_diff_threshold=rule.residual_diff_threshold,
                max_cached_steps=rule.max_cached_steps,
                max_continuous_cached_steps=rule.max_continuous_cached_steps,
                max_accumulated_residual_diff_threshold=(
                    rule.max_accumulated_residual_diff_threshold
                ),
            )
        )
    return message


def _op_from_proto(message: plan_pb2.Op, field: str) -> Op:
    if message.kind not in _FROM_KIND or message.reason not in _FROM_REASON:
        raise MalformedProgramError(f"{field}: kind or reason is missing or unknown")
    rule = None
    if message.HasField("adaptive"):
        m = message.adaptive
        limits = {
            name: getattr(m, name) if m.HasField(name) else None
            for name in (
                "max_cached_steps",
                "max_continuous_cached_steps",
                "max_accumulated_residual_diff_threshold",
            )
        }
        rule = AdaptiveRule(residual_diff_threshold=m.residual_diff_threshold, **limits)
    try:
        return Op(
            kind=_FROM_KIND[message.kind],
            reason=_FROM_REASON[message.reason],
            adaptive=rule,
            refresh=message.refresh,
        )
    except ValueError as error:
        raise MalformedProgramError(f"{field}: {error}") from None
