"""What of a pipeline is quantized, from a ``quantize_config``."""

from __future__ import annotations

from planner.compile.plan import ComponentQuantization, Placement, PrecisionRule
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import ComponentQuantizeConfig, QuantizeConfig
from planner.diagnostics import Severity
from planner.models.components import components_of
from planner.models.facts import ModelFacts

_SECTION = "quantize_config"


def resolve_placement(config: AccelerationConfig, model: ModelFacts) -> Placement:
    """One form for every spelling of a quantization; faults are reported to the config."""
    quantize = config.quantize
    if quantize is None:
        return Placement()
    _check_components(config, quantize, model)
    rules = [PrecisionRule(*each) for each in sorted((quantize.precision_plan or {}).items())]
    excluded = _unordered(quantize.exclude_layers)
    all_alike = Placement(quantize.quant_type, excluded, (), tuple(rules))
    components = _components(quantize)
    targets = sorted(target.name for target in model.architecture.targets)
    if components == tuple(
        ComponentQuantization(name, all_alike.quant_type, all_alike.exclude_layers)
        for name in targets
    ):
        return all_alike
    if not components:
        return all_alike
    # What is for all is in each of them, and nothing else is quantized.
    return Placement(components=components, precision=tuple(rules))


def _unordered(names: list[str]) -> tuple[str, ...]:
    """One form for every order in which names can be listed."""
    return tuple(sorted(set(names)))


def _components(quantize: QuantizeConfig) -> tuple[ComponentQuantization, ...]:
    chosen = quantize.components_to_quantize or {}
    found = []
    for name in sorted(set(chosen)):
        own = chosen[name] if isinstance(chosen, dict) else None
        own = own or ComponentQuantizeConfig()
        excluded = quantize.exclude_layers if own.exclude_layers is None else own.exclude_layers
        found.append(
            ComponentQuantization(name, own.quant_type or quantize.quant_type, _unordered(excluded))
        )
    return tuple(found)


def _check_components(
    config: AccelerationConfig, quantize: QuantizeConfig, model: ModelFacts
) -> None:
    architecture = model.architecture
    held = [target.name for target in architecture.targets]
    held += components_of(architecture.pipeline_class)
    chosen = quantize.components_to_quantize or []
    for i, name in enumerate(chosen):
        if name not in held:
            config.report(
                Severity.ERROR,
                "no-such-component",
                (_SECTION, "components_to_quantize", i if isinstance(chosen, list) else name),
                f"this model has no {name}",
                f"its components: {', '.join(held)}",
            )
