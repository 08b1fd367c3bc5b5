"""What a program should cost on a model at a size: a pure function of the three."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from planner.compile import dtype as dtypes
from planner.compile.cost import ColumnCost, Cost, ExchangeCost
from planner.compile.counters import Bounds
from planner.compile.estimates.cache_size import Holding, holdings, peak_bytes
from planner.compile.estimates.exchange import (
    DECISION,
    DECISION_BYTES,
    GUIDANCE,
    HELD_BYTES,
    OUTCOME_BYTES,
    Rank,
    Traffic,
    Volume,
    added,
)
from planner.compile.estimates.forward import ForwardCost, forward_cost
from planner.compile.plan import Branch, OpKind, Program
from planner.compile.request import Request
from planner.models.facts import ModelFacts


def estimate_cost(
    program: Program,
    model: ModelFacts,
    request: Request,
    computed: Sequence[Bounds],
) -> Cost | None:
    """The cost of one run; None for a model whose layers are not known.

    ``request`` has its defaults filled in; ``computed`` are the bounds of the program's columns.
    Activations and weights that are not quantized are of the request's dtype. Prompts count as long
    as the pipeline pads them, or else as long as it takes them.
    """
    if model.sequence is None or len(model.shapes) < len(model.architecture.targets):
        return None
    defaults = model.defaults
    tokens = model.sequence.counts(
        request.height or defaults.height,
        request.width or defaults.width,
        request.num_frames or defaults.num_frames,
    )
    batch = model.guidance.batch(request.guidance_scale, negative_prompt=request.negative_prompt)
    dtype = request.dtype or dtypes.ASSUMED
    rank = Rank(tokens, program.topology, batch, dtypes.BYTES[dtype])
    forward = forward_cost(model, rank, program.placement)
    return _Estimator(program, forward, batch, dtype).cost(computed)


class _Estimator:
    def __init__(self, program: Program, forward: ForwardCost, batch: int, dtype: str) -> None:
        self._program = program
        self._forward = forward
        self._groups = [forward.groups[c.target, c.block_lists] for c in program.columns]
        self._ops = program.by_column()
        # Those that rank 0 runs.
        self._own = [c for c, half in enumerate(program.halves()) if half == 0]
        self._batch = batch
        self._dtype = dtype

    def cost(self, computed: Sequence[Bounds]) -> Cost:
        groups = self._groups
        columns, halves = self._columns(), self._program.halves()
        runs = [len(ops) - ops.count(None) for ops in self._ops]
        # Steps in which the same columns run cost the same.
        steps = Counter(tuple([op is not None for op in step]) for step in self._program.steps)
        rest = {active: self._rest_flops(active) for active in steps}
        rest_of_run = sum(times * rest[active] for active, times in steps.items())

        def total(bound: list[int]) -> int:
            return rest_of_run + sum(
                n * column.full_flops + (run - n) * column.cached_flops
                for column, n, run in zip(columns, bound, runs, strict=True)
            )

        def of_step(active: tuple[bool, ...], of_column: list[int]) -> int:
            return sum(v for v, on in zip(of_column, active, strict=True) if on)

        full = [column.full_flops for column in columns]
        return Cost(
            columns=columns,
            step_flops=max(rest[active] + of_step(active, full) for active in steps),
            full_flops=total(runs),
            min_flops=total([bound.min_computed for bound in computed]),
            max_flops=total([bound.max_computed for bound in computed]),
            parameter_bytes=self._forward.parameter_bytes,
            activation_bytes=max(group.activation_bytes for group in groups),
            cache_bytes=max(
                sum(
                    column.cache_bytes
                    for column, by in zip(columns, halves, strict=True)
                    if by == half
                )
                for half in set(halves)
            ),
            exchanges=self._exchanges(computed, runs, steps),
            dtype=self._dtype,
        )

    def _columns(self) -> tuple[ColumnCost, ...]:
        # Columns that do the same with the same calibrator hold the same tensors.
        known: dict[tuple[int, int, bool], frozenset[Holding]] = {}
        columns = []
        for column, group, ops in zip(self._program.columns, self._groups, self._ops, strict=True):
            cache_bytes = 0
            if column.calibrator is not None:
                ends = column.fn_compute_blocks + column.bn_compute_blocks
                has_middle = ends < self._program.model.target(column.target).num_blocks(
                    column.block_lists
                )
                key = id(ops), id(column.calibrator), has_middle
                if key not in known:
                    known[key] = holdings(ops, column.calibrator, has_middle=has_middle)
                held = known[key]
                if self._program.topology.branch_ranks > 1:
                    # Ranks sum anew for every test.
                    held = frozenset(each._replace(mean=False) for each in held)
                cache_bytes = peak_bytes(
                    held, group.stream_elements, self._batch, dtypes.BYTES[self._dtype]
                )
            ends_flops = group.ends_flops(column.fn_compute_blocks, column.bn_compute_blocks)
            columns.append(ColumnCost(group.flops, ends_flops, cache_bytes))
        return tuple(columns)

    def _rest_flops(self, active: tuple[bool, ...]) -> int:
        """What a step computes outside of blocks, once for every forward in it."""
        columns = zip(self._program.columns, active, strict=True)
        forwards = {(column.target, column.branch) for column, on in columns if on}
        return sum(self._forward.rest_flops[target] for target, _ in forwards)

    def _exchanges(
        self, computed: Sequence[Bounds], runs: Sequence[int], steps: Counter[tuple[bool, ...]]
    ) -> tuple[ExchangeCost, ...]:
        if self._program.topology.world_size == 1:
            return ()
        own = self._own
        full = [self._groups[c].traffic for c in own]
        ends = [
            self._groups[c].ends_traffic(column.fn_compute_blocks, column.bn_compute_blocks)
            for c, column in ((c, self._program.columns[c]) for c in own)
        ]
        outputs = {active: self._outputs(active) for active in steps}

        def total(bound: list[int], decisions: int) -> Traffic:
            return added(
                *zip(full, bound, strict=True),
                *((e, runs[c] - n) for e, n, c in zip(ends, bound, own, strict=True)),
                ({DECISION: Volume(1, DECISION_BYTES)}, decisions),
                *((outputs[active], times) for active, times in steps.items()),
                (self._told(), 1),
            )

        least = total([computed[c].min_computed for c in own], 0)
        most = total([computed[c].max_computed for c in own], self._decisions())
        of_steps = [
            added(*((f, int(active[c])) for f, c in zip(full, own, strict=True)), (output, 1))
            for active, output in outputs.items()
        ]
        nothing = Volume(0, 0)
        return tuple(
            ExchangeCost(
                *key,
                max(step.get(key, nothing).bytes for step in of_steps),
                *least.get(key, nothing),
                *most.get(key, nothing),
            )
            for key in sorted(least.keys() | most.keys())
        )

    def _outputs(self, active: tuple[bool, ...]) -> Traffic:
        """What the halves of the ranks give each other in a step: the output of their forward."""
        if self._program.topology.guidance_size == 1:
            return {}
        columns = zip(self._program.columns, active, strict=True)
        targets = {column.target for column, on in columns if on}
        nbytes = sum(self._forward.output_bytes[target] for target in targets)
        return {GUIDANCE: Volume(len(targets), nbytes)}

    def _told(self) -> Traffic:
        """What they tell each other beside: what ADAPTIVE ops did, and at last what caches held."""
        if self._program.topology.guidance_size == 1:
            return {}
        adaptive = [
            sum(op.adaptive is not None for op in step if op) for step in self._program.steps
        ]
        cached = any(column.calibrator is not None for column in self._program.columns)
        return {
            GUIDANCE: Volume(
                sum(map(bool, adaptive)) + cached,
                OUTCOME_BYTES * sum(adaptive) + HELD_BYTES * len(self._groups) * cached,
            )
        }

    def _decisions(self) -> int:
        """One for every test, less those that take the conditional branch's result."""
        if self._program.topology.branch_ranks == 1:
            return 0
        columns = ((self._program.columns[c], self._ops[c]) for c in self._own)
        tests = {
            (column.target, column.block_lists, column.branch, i, column.reuses_cond_diff)
            for column, ops in columns
            for i, op in enumerate(ops)
            if op is not None and op.kind is OpKind.ADAPTIVE
        }
        return sum(
            not (reuses and (target, lists, Branch.COND, i, False) in tests)
            for target, lists, _, i, reuses in tests
        )
