"""What files hold beside the keys of the schema: other spellings, keys left out on purpose."""

from __future__ import annotations

from collections.abc import Mapping

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

UNSUPPORTED: Mapping[str, Mapping[str, str]] = {
    "cache_config": dict.fromkeys(
        (
            "enable_dynamic_prune_threshold",
            "max_dynamic_prune_threshold",
            "dynamic_prune_threshold_relax_ratio",
            "non_prune_block_ids",
            "force_reduce_calibrator_vram",
        ),
        "belongs to DBPrune, which ditplan does not support",
    ),
    "parallelism_config": dict.fromkeys(
        ("cp_plan", "extra_parallel_kwargs", "parallel_kwargs", "use_ray"),
        "is not supported by ditplan",
    ),
    "quantize_config": dict.fromkeys(
        (
            "backend",
            "regional_quantize",
            "repeated_blocks",
            "filter_fn",
            "per_tensor_fallback",
            "calibrate_fn",
            "serialize_to",
            "svdq_kwargs",
        ),
        "is not supported by ditplan yet",
    ),
}
"""Keys of Cache-DiT that are refused by name, by section, with the reason."""


def canonical_key(section: str, key: str) -> str:
    """The key of the schema that a key of a file stands for."""
    return MISSPELT.get(section, {}).get(key) or SYNONYMS.get(section, {}).get(key, key)
