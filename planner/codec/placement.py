"""Between what is settled when weights are loaded, or ranks meet, and its messages."""

from __future__ import annotations

from ditplan.v1 import plan_pb2

from planner.compile.plan import ComponentQuantization, Placement, PrecisionRule, Topology


def placement_to_proto(placement: Placement) -> plan_pb2.Placement:
    return plan_pb2.Placement(
        quant_type=placement.quant_type,
        exclude_layers=placement.exclude_layers,
        components=[
            plan_pb2.ComponentQuantization(
                name=each.name, quant_type=each.quant_type, exclude_layers=each.exclude_layers
            )
            for each in placement.components
        ],
        precision=[
            plan_pb2.PrecisionRule(part=rule.part, quant_type=rule.quant_type)
            for rule in placement.precision
        ],
    )


def placement_from_proto(message: plan_pb2.Placement) -> Placement:
    return Placement(
        quant_type=message.quant_type,
        exclude_layers=tuple(message.exclude_layers),
        components=tuple(
            ComponentQuantization(each.name, each.quant_type, tuple(each.exclude_layers))
            for each in message.components
        ),
        precision=tuple(PrecisionRule(rule.part, rule.quant_type) for rule in message.precision),
    )


def topology_to_proto(topology: Topology) -> plan_pb2.Topology:
    return plan_pb2.Topology(
        world_size=topology.world_size,
        ring_size=topology.ring_size,
        ulysses_size=topology.ulysses_size,
        tp_size=topology.tp_size,
        ulysses_anything=topology.ulysses_anything,
        ulysses_float8=topology.ulysses_float8,
        ulysses_async=topology.ulysses_async,
        ring_rotate_method=topology.ring_rotate_method,
        ring_convert_to_fp32=topology.ring_convert_to_fp32,
        extra_parallel_modules=topology.extra_parallel_modules,
        guidance_size=topology.guidance_size if topology.guidance_size > 1 else 0,
    )


def topology_from_proto(message: plan_pb2.Topology) -> Topology:
    return Topology(
        world_size=message.world_size,
        ring_size=message.ring_size,
        ulysses_size=message.ulysses_size,
        tp_size=message.tp_size,
        ulysses_anything=message.ulysses_anything,
        ulysses_float8=message.ulysses_float8,
        ulysses_async=message.ulysses_async,
        ring_rotate_method=message.ring_rotate_method,
        ring_convert_to_fp32=message.ring_convert_to_fp32,
        extra_parallel_modules=tuple(message.extra_parallel_modules),
        guidance_size=message.guidance_size or 1,
    )
