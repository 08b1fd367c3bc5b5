"""The files that one component of a checkpoint consists of."""

from __future__ import annotations

from pathlib import Path

from executor.checkpoints.files import read_json, refuse_pointer
from executor.checkpoints.weights import Weights, find_weights
from executor.errors import PlacementError

# Any of these sets of files is a vocabulary.
VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("tokenizer.model",),
)
PREPROCESSORS = (("preprocessor_config.json",), ("processor_config.json",))
# By the end of a component's class name: of each group, one set of files must be there. The first
# ending that fits counts.
REQUIRED = {
    "Scheduler": ((("scheduler_config.json",),),),
    "Guidance": ((("guider_config.json",),),),
    # Its vocabulary is the bytes.
    "ByT5Tokenizer": ((("tokenizer_config.json",),),),
    "Tokenizer": ((("tokenizer_config.json",),), VOCABULARIES),
    "TokenizerFast": ((("tokenizer_config.json",),), VOCABULARIES),
    "Processor": (PREPROCESSORS,),
    "ProcessorPil": (PREPROCESSORS,),
    "FeatureExtractor": ((("preprocessor_config.json",),),),
}
# With these in its config, a model is not what its weights say.
QUANTIZED = ("quantization_config", "compression_config")
OTHER_WEIGHTS = "transformers_weights"
ADAPTER = "adapter_config.json"


def inspect_component(
    directory: Path, library: str, class_name: str, variant: str | None = None
) -> Weights | None:
    """Its weights; None for a scheduler, a tokenizer or a processor.

    Raises:
        PlacementError: a file is missing, cannot be read or is not supported; the message names it.
    """
    if not directory.is_dir():
        raise PlacementError(f"{directory}: no such directory, but model_index.json lists it")
    for file in sorted(directory.glob("*.json")):
        read_json(file)
    for ending, groups in REQUIRED.items():
        if class_name.endswith(ending):
            for group in groups:
                _require_one(directory, group)
            return None
    _require_one(directory, (("config.json",),))
    _refuse_unusual(directory)
    return find_weights(directory, library, variant)


def has_weights(class_name: str) -> bool:
    return not any(class_name.endswith(ending) for ending in REQUIRED)


def _require_one(directory: Path, group: tuple[tuple[str, ...], ...]) -> None:
    for names in group:
        paths = [directory / name for name in names]
        if all(path.is_file() for path in paths):
            for path in paths:
                refuse_pointer(path)
            return
    raise PlacementError(f"{directory}: no {' or '.join(' and '.join(names) for names in group)}")


def _refuse_unusual(directory: Path) -> None:
    path = directory / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise PlacementError(f"{path}: {type(config).__name__}, not an object")
    for key in QUANTIZED:
        stored = config.get(key)
        if stored:
            method = stored.get("quant_method") if isinstance(stored, dict) else stored
            raise PlacementError(
                f"{path}: {key} {method!r}: checkpoints whose weights are quantized on disk are "
                "not supported; take the one of full precision"
            )
    if config.get(OTHER_WEIGHTS):
        raise PlacementError(
            f"{path}: {OTHER_WEIGHTS} {config[OTHER_WEIGHTS]!r}: weights are read from files of "
            "the usual names only"
        )
    if (directory / ADAPTER).exists():
        raise PlacementError(f"{directory / ADAPTER}: adapters are not loaded from a component")
