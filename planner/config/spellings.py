"""What files hold beside the keys of the schema: other spellings, keys left out on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MISSPELT: Mapping[str, Mapping[str, str]] = {
    "cache_config": {"enable_sperate_cfg": "enable_separate_cfg"},
}
"""Misspellings that are in circulation, by section: Cache-DiT ignores them without a word."""

SYNONYMS: Mapping[str, Mapping[str, str]] = {
    "parallelism_config": {"ulysses": "ulysses_size", "ring": "ring_size", "tp": "tp_size"},
}
"""Documented other names of keys, by section."""

QUANT_TYPES: Mapping[str, str] = {
    "float8": "float8_per_row",
    "float8_blockwise": "float8_per_block",
    "int8": "int8_per_row",
}

LEGACY: Mapping[str, str] = {
    f"experimental_{flag}": flag for flag in ("ulysses_anything", "ulysses_float8", "ulysses_async")
}
"""Old names of keys in ``parallelism_config.parallel_kwargs``, which once held them."""

_DBPRUNE = "belongs to DBPrune, which ditplan does not support"
_SVDQUANT = "belongs to SVDQuant, which ditplan does not support"
_NOT_YET = "is not supported by ditplan yet"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Why a key is refused, and the values at which it says what is done anyway."""

    reason: str
    harmless: tuple[Any, ...] = ()


UNSUPPORTED: Mapping[str, Mapping[str, Unsupported]] = {
    "cache_config": {
        "enable_dynamic_prune_threshold": Unsupported(_DBPRUNE, (False,)),
        "max_dynamic_prune_threshold": Unsupported(_DBPRUNE),
        "dynamic_prune_threshold_relax_ratio": Unsupported(_DBPRUNE, (1.25,)),
        "non_prune_block_ids": Unsupported(_DBPRUNE, ([],)),
        "force_reduce_calibrator_vram": Unsupported(_DBPRUNE, (False,)),
    },
    "parallelism_config": {
        "cp_plan": Unsupported("is not supported by ditplan"),
        "extra_parallel_kwargs": Unsupported("is not supported by ditplan", ({},)),
        "use_ray": Unsupported("is not supported by ditplan", (False,)),
    },
    "quantize_config": {
        "backend": Unsupported(
            "other than torchao is for SVDQuant, which ditplan does not support",
            ("auto", "torchao"),
        ),
        "regional_quantize": Unsupported(f"other than true {_NOT_YET}", (True,)),
        "repeated_blocks": Unsupported(_NOT_YET, ([],)),
        "filter_fn": Unsupported("is no plain data"),
        "per_tensor_fallback": Unsupported(f"other than true {_NOT_YET}", (True,)),
        "calibrate_fn": Unsupported(_SVDQUANT),
        "serialize_to": Unsupported(_SVDQUANT),
        "svdq_kwargs": Unsupported(_SVDQUANT, ({},)),
    },
}
"""Keys of Cache-DiT that are refused by name, by section; null says nothing, as everywhere."""


def canonical_key(section: str, key: str) -> str:
    """The key of the schema that a key of a file stands for."""
    return MISSPELT.get(section, {}).get(key) or SYNONYMS.get(section, {}).get(key, key)
