"""What a program should cost on a model at a size: a pure function of the three."""

from __future__ import annotations

from collections.abc import Sequence

from planner.compile import dtype as dtypes
from planner.compile.cache_size import peak_cache_bytes
from planner.compile.cost import ColumnCost, Cost
from planner.compile.exchange import Rank
from planner.compile.plan import Branch, Column, OpKind, Program
from planner.compile.request import Request
from planner.compile.rule import Bounds
from planner.compile.weights import parameter_bytes
from planner.models.facts import BlockGroup, ModelFacts
from planner.models.layers import Layers, Shape, TokenCounts


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
    shapes = {shape.target: shape for shape in model.shapes}
    if model.sequence is None or any(column.target not in shapes for column in program.columns):
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
    return _Estimator(program, model, shapes, rank).cost(computed, dtype)


class _Estimator:
    def __init__(
        self, program: Program, model: ModelFacts, shapes: dict[str, Shape], rank: Rank
    ) -> None:
        self._program = program
        self._model = model
        self._shapes = shapes
        self._rank = rank
        self._blocks = [self._blocks_of(column) for column in program.columns]
        self._ops = [[step[c] for step in program.steps] for c in range(len(program.columns))]

    def cost(self, computed: Sequence[Bounds], dtype: str) -> Cost:
        columns = tuple(self._column(c) for c in range(len(self._blocks)))
        runs = [sum(op is not None for op in ops) for ops in self._ops]
        # Steps in which the same columns run cost the same.
        steps: dict[tuple[bool, ...], int] = {}
        for step in self._program.steps:
            active = tuple(op is not None for op in step)
            steps[active] = steps.get(active, 0) + 1
        rest = sum(times * self._rest_flops(active) for active, times in steps.items())

        def total(bound: list[int]) -> int:
            return rest + sum(
                n * column.full_flops + (run - n) * column.cached_flops
                for column, n, run in zip(columns, bound, runs, strict=True)
            )

        def most(of_column: list[int]) -> int:
            return max(sum(v for v, on in zip(of_column, a, strict=True) if on) for a in steps)

        return Cost(
            columns=columns,
            step_flops=max(
                self._rest_flops(active)
                + sum(c.full_flops for c, on in zip(columns, active, strict=True) if on)
                for active in steps
            ),
            full_flops=total(runs),
            min_flops=total([bound.min_computed for bound in computed]),
            max_flops=total([bound.max_computed for bound in computed]),
            parameter_bytes=self._parameter_bytes(),
            activation_bytes=max(map(self._activation_bytes, range(len(columns)))),
            all_to_all_bytes=most([self._all_to_all(c) for c in range(len(columns))]),
            ring_bytes=most([self._ring(c) for c in range(len(columns))]),
            all_reduce_bytes=most([self._all_reduce(c) for c in range(len(columns))]),
            decision_collectives=self._decisions(),
            dtype=dtype,
        )

    def _blocks_of(self, column: Column) -> list[tuple[Layers, int]]:
        """The layers of the column's blocks, in execution order, with how many are alike."""
        target = self._model.architecture.target(column.target)
        by_list = {
            listed.name: (block, listed.num_blocks)
            for listed, block in zip(
                target.block_lists, self._shapes[column.target].blocks, strict=True
            )
        }
        return [by_list[name] for name in column.block_lists]

    def _column(self, c: int) -> ColumnCost:
        column, ops = self._program.columns[c], self._ops[c]
        tokens, batch = self._rank.tokens, self._rank.batch
        blocks = self._blocks[c]
        ends = _ends(blocks, column.fn_compute_blocks, tokens)
        ends += _ends(blocks[::-1], column.bn_compute_blocks, tokens)
        cache = 0
        if column.calibrator is not None:
            target = self._model.architecture.target(column.target)
            elements = self._rank.stream_elements(self._group(column), target)
            cache = peak_cache_bytes(
                ops,
                column.calibrator,
                elements,
                batch,
                self._rank.dtype_bytes,
                has_middle=column.fn_compute_blocks + column.bn_compute_blocks
                < target.num_blocks(column.block_lists),
            )
        return ColumnCost(
            full_flops=batch * sum(n * layers.flops(tokens) for layers, n in blocks),
            cached_flops=batch * ends,
            cache_bytes=cache,
        )

    def _group(self, column: Column) -> BlockGroup:
        return next(
            group
            for group in self._model.groups
            if (group.target, group.block_lists) == (column.target, column.block_lists)
        )

    def _rest_flops(self, active: tuple[bool, ...]) -> int:
        """What a step computes outside of blocks, once for every forward in it."""
        columns = zip(self._program.columns, active, strict=True)
        forwards = {(column.target, column.branch) for column, on in columns if on}
        tokens, batch = self._rank.tokens, self._rank.batch
        return batch * sum(self._shapes[target].rest.flops(tokens) for target, _ in forwards)

    def _parameter_bytes(self) -> int:
        return sum(
            parameter_bytes(
                target,
                self._shapes[target.name],
                self._program.placement,
                tp_size=self._program.topology.tp_size,
                dtype_bytes=self._rank.dtype_bytes,
            )
            for target in self._model.architecture.targets
        )

    def _activation_bytes(self, c: int) -> int:
        column = self._program.columns[c]
        target = self._model.architecture.target(column.target)
        streams = sum(self._rank.stream_elements(self._group(column), target))
        widest = max((self._rank.layer_bytes(layers) for layers, _ in self._blocks[c]), default=0)
        return streams * self._rank.dtype_bytes + widest

    def _all_to_all(self, c: int) -> int:
        target = self._model.architecture.target(self._program.columns[c].target)
        return sum(
            n * self._rank.all_to_all_bytes(attention, target.attention_head_dim)
            for layers, n in self._blocks[c]
            for attention in layers.attentions
        )

    def _ring(self, c: int) -> int:
        return sum(
            n * self._rank.ring_bytes(attention)
            for layers, n in self._blocks[c]
            for attention in layers.attentions
        )

    def _all_reduce(self, c: int) -> int:
        return sum(
            n * self._rank.all_reduce_bytes(linear)
            for layers, n in self._blocks[c]
            for linear in layers.linears
        )

    def _decisions(self) -> int:
        """One for every test, less those that take the conditional branch's result."""
        if self._program.topology.world_size == 1:
            return 0
        tests = {
            (column.target, column.block_lists, column.branch, i, column.reuses_cond_diff)
            for column, ops in zip(self._program.columns, self._ops, strict=True)
            for i, op in enumerate(ops)
            if op is not None and op.kind is OpKind.ADAPTIVE
        }
        return sum(
            not (reuses and (target, lists, Branch.COND, i, False) in tests)
            for target, lists, _, i, reuses in tests
        )


def _ends(blocks: list[tuple[Layers, int]], count: int, tokens: TokenCounts) -> int:
    """FLOPs of the first ``count`` blocks."""
    flops = 0
    for layers, n in blocks:
        taken = min(n, count)
        flops += taken * layers.flops(tokens)
        count -= taken
    return flops
