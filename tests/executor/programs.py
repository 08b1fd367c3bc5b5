"""Programs for the tiny pipeline, written as a letter per step."""

from __future__ import annotations

from ditplan.v1 import plan_pb2

KINDS = {
    "F": plan_pb2.Op(kind=plan_pb2.OP_KIND_FULL, reason=plan_pb2.REASON_WARMUP),
    "C": plan_pb2.Op(kind=plan_pb2.OP_KIND_CACHED, reason=plan_pb2.REASON_SCM_CACHE),
    "A": plan_pb2.Op(
        kind=plan_pb2.OP_KIND_ADAPTIVE,
        reason=plan_pb2.REASON_DBCACHE,
        adaptive=plan_pb2.AdaptiveRule(residual_diff_threshold=0.5, max_cached_steps=3),
    ),
}


def program(steps: str) -> plan_pb2.Program:
    """E.g. "FFCCF": which steps are full, cached or adaptive."""
    used = list(dict.fromkeys(steps))
    return plan_pb2.Program(
        model=plan_pb2.Model(
            family="flux",
            pipeline_class="FluxPipeline",
            targets=[
                plan_pb2.Target(
                    name="transformer",
                    transformer_class="FluxTransformer2DModel",
                    block_lists=[
                        plan_pb2.BlockList(name="transformer_blocks", num_blocks=2),
                        plan_pb2.BlockList(name="single_transformer_blocks", num_blocks=4),
                    ],
                    num_attention_heads=4,
                    attention_head_dim=16,
                )
            ],
        ),
        num_inference_steps=len(steps),
        columns=[
            plan_pb2.Column(
                target="transformer",
                branch=plan_pb2.BRANCH_COND,
                block_lists=["transformer_blocks", "single_transformer_blocks"],
                fn_compute_blocks=1,
                calibrator=plan_pb2.Calibrator(cache_type=plan_pb2.CACHE_TYPE_RESIDUAL),
            )
        ],
        ops=[KINDS[letter] for letter in used],
        steps=[plan_pb2.Step(ops=[1 + used.index(letter)]) for letter in steps],
        topology=plan_pb2.Topology(world_size=1, ring_size=1, ulysses_size=1, tp_size=1),
    )
