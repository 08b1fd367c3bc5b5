"""Between messages and values: what an executor holds, what a plan needs of one."""

from __future__ import annotations

from ditplan.runtime.v1 import runtime_pb2
from ditplan.v1 import executor_pb2, plan_pb2

from executor.engine.program import NATIVE
from executor.placement.device import compute_capability
from executor.placement.load import LoadedPipeline
from executor.placement.placement import Placement
from executor.placement.quantization import ComponentQuantization, PrecisionRule, Quantization
from executor.placement.requirements import Requirements, TargetRequirement, shared_encoders


def requirements_from_proto(message: plan_pb2.Program) -> Requirements:
    return Requirements(
        pipeline_class=message.model.pipeline_class,
        targets=tuple(
            TargetRequirement(
                name=target.name,
                transformer_class=target.transformer_class,
                block_lists=tuple(
                    (blocks.name, blocks.num_blocks) for blocks in target.block_lists
                ),
            )
            for target in message.model.targets
        ),
        world_size=message.topology.world_size,
        placement=Placement(
            message.topology.tp_size or 1,
            shared_encoders(message.topology.extra_parallel_modules),
            quantization_from_proto(message.placement).canonical(
                [target.name for target in message.model.targets]
            ),
        ),
        attention_backend=message.attention_backend or NATIVE,
        ring_size=message.topology.ring_size,
        ring_rotate_method=message.topology.ring_rotate_method,
    )


def executor_to_proto(
    name: str, loaded: LoadedPipeline, allow_reload: bool
) -> executor_pb2.Executor:
    return executor_pb2.Executor(
        name=name,
        model=loaded.served_name,
        component_configs=[
            executor_pb2.ComponentConfig(path=path, json=text)
            for path, text in loaded.checkpoint.configs.items()
        ],
        world_size=loaded.share.world_size,
        device=loaded.device.type,
        device_name=loaded.device_name,
        dtype=loaded.dtype,
        versions=loaded.versions,
        tp_size=loaded.share.tp_size,
        extra_parallel_modules=loaded.share.encoders,
        placement=quantization_to_proto(loaded.quantization),
        compute_capability=compute_capability(loaded.device),
        attention_backends=loaded.attention_backends,
        allow_reload=allow_reload,
        compiled=loaded.compiled,
        offloaded=loaded.offloaded,
    )


def layers_to_proto(loaded: LoadedPipeline) -> list[executor_pb2.QuantizedLayers]:
    return [
        executor_pb2.QuantizedLayers(
            component=each.component,
            name=each.name,
            count=each.count,
            quant_type=each.quant_type,
            reason=each.reason,
            weight_bytes=each.weight_bytes,
        )
        for each in loaded.layers
    ]


def reload_to_proto(placement: Placement) -> runtime_pb2.Reload:
    return runtime_pb2.Reload(
        placement=quantization_to_proto(placement.quantization),
        tp_size=placement.tp_size,
        extra_parallel_modules=placement.encoders,
    )


def placement_from_reload(message: runtime_pb2.Reload) -> Placement:
    return Placement(
        message.tp_size,
        tuple(message.extra_parallel_modules),
        quantization_from_proto(message.placement),
    )


def quantization_to_proto(quantization: Quantization) -> plan_pb2.Placement:
    return plan_pb2.Placement(
        quant_type=quantization.quant_type,
        exclude_layers=quantization.exclude_layers,
        components=[
            plan_pb2.ComponentQuantization(
                name=each.name, quant_type=each.quant_type, exclude_layers=each.exclude_layers
            )
            for each in quantization.components
        ],
        precision=[
            plan_pb2.PrecisionRule(part=rule.part, quant_type=rule.quant_type)
            for rule in quantization.precision
        ],
    )


def quantization_from_proto(message: plan_pb2.Placement) -> Quantization:
    """One value for every order in which layers and components can be listed."""
    components = sorted(message.components, key=lambda each: each.name)
    rules = sorted(message.precision, key=lambda rule: rule.part)
    return Quantization(
        quant_type=message.quant_type,
        exclude_layers=tuple(sorted(set(message.exclude_layers))),
        components=tuple(
            ComponentQuantization(
                each.name, each.quant_type, tuple(sorted(set(each.exclude_layers)))
            )
            for each in components
        ),
        precision=tuple(PrecisionRule(rule.part, rule.quant_type) for rule in rules),
    )
