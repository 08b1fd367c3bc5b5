"""What an executor holds, in words."""

from __future__ import annotations

from ditplan.v1 import executor_pb2


def placement_label(executor: executor_pb2.Executor) -> str:
    """Few enough different ones for a metric, e.g. "bfloat16" or "int8_weight_only tp2"."""
    placement = executor.placement
    types = [placement.quant_type, *(each.quant_type for each in placement.components)]
    words = [name for name in dict.fromkeys(types) if name] or [executor.dtype or "unknown"]
    if executor.tp_size > 1:
        words.append(f"tp{executor.tp_size}")
    return " ".join(words)


def placement_in_words(executor: executor_pb2.Executor) -> str:
    """All of it, e.g. "int8 on bfloat16, 2 ranks, tp_size 2, compiled"."""
    words = [_types(executor)]
    if executor.world_size > 1:
        words.append(f"{executor.world_size} ranks")
    if executor.tp_size > 1:
        words.append(f"tp_size {executor.tp_size}")
    if executor.extra_parallel_modules:
        words.append(f"shares {' and '.join(executor.extra_parallel_modules)}")
    if executor.compiled:
        words.append("compiled")
    if executor.offloaded:
        words.append(f"offloads {' and '.join(executor.offloaded)}")
    if executor.allow_reload:
        words.append("may reload")
    return ", ".join(words)


def device_in_words(executor: executor_pb2.Executor) -> str:
    """E.g. "NVIDIA H200 (sm90)" or "cpu"."""
    capability = executor.compute_capability
    if not capability:
        return executor.device or "unknown"
    return f"{executor.device_name or executor.device} ({capability})"


def _types(executor: executor_pb2.Executor) -> str:
    placement, dtype = executor.placement, executor.dtype or "unknown dtype"
    types = [f"{each.name} in {each.quant_type}" for each in placement.components]
    if placement.quant_type:
        types.append(placement.quant_type)
    if placement.precision:
        count = len(placement.precision)
        types.append(f"{count} layer rule{'s' * (count > 1)}")
    return f"{' and '.join(types)} on {dtype}" if types else dtype
