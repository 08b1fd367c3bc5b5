"""A plan as a JSON-ready document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from planner.compile.compiler import Compilation
from planner.compile.plan import Calibrator, Column, Estimate, Op, Program
from planner.compile.sources import Source
from planner.diagnostics import Diagnostic
from planner.render.costs import cached_step_flops
from planner.render.sources import plain
from planner.render.summary import grouped_targets


def plan_document(compilation: Compilation, plan_id: str | None, *, model: str) -> dict[str, Any]:
    """The same keys in every case; without a plan its parts are null or empty."""
    program, estimate = compilation.program, compilation.estimate
    return {
        "plan_id": plan_id,
        "model": model,
        "request": asdict(compilation.request),
        "steps": _steps(program) if program else [],
        "computed_steps": _computed_steps(estimate) if estimate else None,
        "estimate": _estimate(program, estimate) if program and estimate else None,
        "columns": [_column(program, column) for column in program.columns] if program else [],
        "topology": plain(asdict(program.topology)) if program else None,
        "placement": plain(asdict(program.placement)) if program else None,
        "layers": [asdict(layers) for layers in compilation.layers],
        "attention_backend": program.attention_backend or None if program else None,
        "sources": [_source(source) for source in compilation.sources],
        "diagnostics": [diagnostic_document(d) for d in compilation.diagnostics],
    }


def diagnostic_document(diagnostic: Diagnostic) -> dict[str, Any]:
    return {**asdict(diagnostic), "severity": diagnostic.severity.value}


def _computed_steps(estimate: Estimate) -> dict[str, int]:
    return {"min": estimate.min_computed_steps, "max": estimate.max_computed_steps}


def _estimate(program: Program, estimate: Estimate) -> dict[str, Any] | None:
    """FLOPs of all ranks together, bytes of one rank; null for a model of unknown layers."""
    cost = estimate.cost
    if cost is None:
        return None
    document = asdict(cost) | {
        "min_speedup": cost.min_speedup,
        "max_speedup": cost.max_speedup,
        "cached_step_flops": cached_step_flops(cost, program),
    }
    document["columns"] = [
        {"target": column.target, "branch": column.branch.value, "group": column.group}
        | asdict(each)
        for column, each in zip(program.columns, cost.columns, strict=True)
    ]
    return document


def _steps(program: Program) -> list[dict[str, Any]]:
    """The ops that run in each step; ``group`` only where a target has several."""
    grouped = grouped_targets(program.columns)
    return [
        {
            "index": index,
            "ops": [
                _op(op, column, column.target in grouped)
                for op, column in zip(ops, program.columns, strict=True)
                if op is not None
            ],
        }
        for index, ops in enumerate(program.steps)
    ]


def _op(op: Op, column: Column, grouped: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"target": column.target, "branch": column.branch.value}
    if grouped:
        document["group"] = column.group
    document |= {"kind": op.kind.name, "reason": op.reason.name}
    if op.adaptive is not None:
        document["rule"] = asdict(op.adaptive)
    if op.refresh:
        document["refresh"] = True
    return document


def _column(program: Program, column: Column) -> dict[str, Any]:
    return {
        "target": column.target,
        "branch": column.branch.value,
        "group": column.group,
        "num_blocks": program.model.target(column.target).num_blocks(column.block_lists),
        "Fn_compute_blocks": column.fn_compute_blocks,
        "Bn_compute_blocks": column.bn_compute_blocks,
        "calibrator": _calibrator(column.calibrator) if column.calibrator else None,
        "reuses_cond_diff": column.reuses_cond_diff,
    }


def _source(source: Source) -> dict[str, Any]:
    return {
        "key": source.key,
        "value": plain(source.value),
        "origin": source.origin,
        "line": source.line,
    }


def _calibrator(calibrator: Calibrator) -> dict[str, Any]:
    forecast = calibrator.forecast
    return {
        "cache_type": calibrator.cache_type.value,
        "forecast": type(forecast).__name__ if forecast else None,
        **(asdict(forecast) if forecast else {}),
        "encoder": calibrator.encoder,
    }
