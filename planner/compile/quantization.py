"""What of a pipeline is quantized, from a ``quantize_config``."""

from __future__ import annotations

from planner.compile.plan import ComponentQuantization, Placement, PrecisionRule
from planner.config.acceleration import AccelerationConfig
from planner.config.schema import ComponentQuantizeConfig, QuantizeConfig
from planner.diagnostics import Severity
from planner.models.components import component_names
from planner.models.facts import ModelFacts

_SECTION = "quantize_config"


def resolve_placement(config: AccelerationConfig, model: ModelFacts) -> Placement:
    """One form for every spelling of a quantization; faults are reported to the config."""
    quantize = config.quantize
    if quantize is None:
        return Placement()
    _check_components(config, quantize, model)
    _check_precision(config, quantize, model)
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


def _check_precision(
    config: AccelerationConfig, quantize: QuantizeConfig, model: ModelFacts
) -> None:
    """Warns of parts of names that no layer has, where all layers that are quantized are known."""
    if not quantize.precision_plan:
        return
    targets = [target.name for target in model.architecture.targets]
    chosen = list(quantize.components_to_quantize or targets)
    if not model.shapes or not set(chosen) <= set(targets):
        return
    names = [
        f"{listed.name}.{i}.{linear.name}"
        for target, shape in zip(model.architecture.targets, model.shapes, strict=True)
        if target.name in chosen
        for listed, block in zip(target.block_lists, shape.blocks, strict=True)
        for i in range(listed.num_blocks)
        for linear in block.linears
    ]
    for part in quantize.precision_plan:
        if not any(part in name for name in names):
            config.report(
                Severity.WARNING,
                "no-such-layer",
                (_SECTION, "precision_plan", part),
                f"no layer of the blocks has {part} in its name",
                f"names are as {names[0]}" if names else "",
                at_key=True,
            )


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
    held = component_names(model.architecture)
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
