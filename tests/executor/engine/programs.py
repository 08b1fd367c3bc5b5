"""Programs for the tiny FLUX pipeline, written as strips: 1 full, 0 cached, ? adaptive."""

from __future__ import annotations

from executor.engine.program import AdaptiveRule, Branch, Calibrator, Column, Op, OpKind, Program

LISTS = ("transformer_blocks", "single_transformer_blocks")
_KINDS = {"1": OpKind.FULL, "0": OpKind.CACHED, "?": OpKind.ADAPTIVE}


def flux_program(
    strip: str,
    *,
    fn: int = 1,
    bn: int = 0,
    rule: AdaptiveRule | None = None,
    calibrator: Calibrator | None = None,
    refresh: frozenset[int] = frozenset(),
) -> Program:
    rule = rule or AdaptiveRule(0.1)
    column = Column("transformer", Branch.COND, LISTS, fn, bn, calibrator or Calibrator())
    return Program(
        columns=(column,),
        steps=tuple(
            (Op(_KINDS[kind], rule if kind == "?" else None, refresh=i in refresh),)
            for i, kind in enumerate(strip)
        ),
    )


def uncached(steps: int) -> Program:
    column = Column("transformer", Branch.COND, LISTS)
    return Program((column,), ((Op(OpKind.FULL),),) * steps)


def decided(program: Program, kinds: list[OpKind]) -> Program:
    """The program with every op replaced by what was done."""
    return Program(
        program.columns,
        tuple(
            (Op(kind, refresh=bool(step[0] and step[0].refresh)),)
            for step, kind in zip(program.steps, kinds, strict=True)
        ),
    )
