"""Between the planner's cost estimate and its message."""

from __future__ import annotations

from ditplan.v1 import plan_pb2

from planner.compile.cost import ColumnCost, Cost, ExchangeCost

_MOST_BYTES = 2**64 - 1
_EXCHANGED = ("step_bytes", "min_calls", "min_bytes", "max_calls", "max_bytes")


def cost_to_proto(cost: Cost) -> plan_pb2.Cost:
    """FLOPs beyond 2^53 lose their last digits; bytes end at what a field holds."""
    return plan_pb2.Cost(
        columns=[
            plan_pb2.ColumnCost(
                full_flops=column.full_flops,
                cached_flops=column.cached_flops,
                cache_bytes=min(column.cache_bytes, _MOST_BYTES),
            )
            for column in cost.columns
        ],
        step_flops=cost.step_flops,
        full_flops=cost.full_flops,
        min_flops=cost.min_flops,
        max_flops=cost.max_flops,
        parameter_bytes=min(cost.parameter_bytes, _MOST_BYTES),
        activation_bytes=min(cost.activation_bytes, _MOST_BYTES),
        exchanges=[_exchange_to_proto(exchange) for exchange in cost.exchanges],
        cache_bytes=min(cost.cache_bytes, _MOST_BYTES),
        dtype=cost.dtype,
    )


def cost_from_proto(message: plan_pb2.Cost) -> Cost:
    return Cost(
        columns=tuple(
            ColumnCost(int(column.full_flops), int(column.cached_flops), column.cache_bytes)
            for column in message.columns
        ),
        step_flops=int(message.step_flops),
        full_flops=int(message.full_flops),
        min_flops=int(message.min_flops),
        max_flops=int(message.max_flops),
        parameter_bytes=message.parameter_bytes,
        activation_bytes=message.activation_bytes,
        cache_bytes=message.cache_bytes,
        exchanges=tuple(
            ExchangeCost(
                exchange.collective,
                exchange.group,
                exchange.step_bytes,
                exchange.min_calls,
                exchange.min_bytes,
                exchange.max_calls,
                exchange.max_bytes,
            )
            for exchange in message.exchanges
        ),
        dtype=message.dtype,
    )


def _exchange_to_proto(cost: ExchangeCost) -> plan_pb2.ExchangeCost:
    return plan_pb2.ExchangeCost(
        collective=cost.collective,
        group=cost.group,
        **{name: min(getattr(cost, name), _MOST_BYTES) for name in _EXCHANGED},
    )
