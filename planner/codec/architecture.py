"""Between the architecture of a model and its message."""

from __future__ import annotations

from ditplan.v1 import plan_pb2

from planner.models.facts import Architecture, BlockList, Target


def model_to_proto(model: Architecture) -> plan_pb2.Model:
    return plan_pb2.Model(
        family=model.family,
        pipeline_class=model.pipeline_class,
        targets=[
            plan_pb2.Target(
                name=target.name,
                transformer_class=target.transformer_class,
                block_lists=[
                    plan_pb2.BlockList(name=blocks.name, num_blocks=blocks.num_blocks)
                    for blocks in target.block_lists
                ],
                num_attention_heads=target.num_attention_heads,
                attention_head_dim=target.attention_head_dim,
            )
            for target in model.targets
        ],
    )


def model_from_proto(message: plan_pb2.Model) -> Architecture:
    return Architecture(
        family=message.family,
        pipeline_class=message.pipeline_class,
        targets=tuple(
            Target(
                name=target.name,
                transformer_class=target.transformer_class,
                block_lists=tuple(BlockList(b.name, b.num_blocks) for b in target.block_lists),
                num_attention_heads=target.num_attention_heads,
                attention_head_dim=target.attention_head_dim,
            )
            for target in message.targets
        ),
    )
