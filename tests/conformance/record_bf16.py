"""Records runs of the tiny transformers in bfloat16 through cache-dit, which must be installed:
``python -m tests.conformance.record_bf16`` writes ``tests/data/bf16_traces.json``."""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.executor.engine.tiny_transformers import WITH_CFG, TinyTransformer

FILE = Path(__file__).parents[1] / "data" / "bf16_traces.json"
STEPS = 12

_PLAIN = {"Fn_compute_blocks": 1, "max_warmup_steps": 3, "residual_diff_threshold": 0.12}
_CONFIGS: dict[str, list[dict[str, Any]]] = {
    "flux": [
        _PLAIN,
        _PLAIN | {"enable_taylorseer": True, "enable_encoder_taylorseer": True},
        _PLAIN | {"enable_foca": True, "Bn_compute_blocks": 1},
    ],
    "flux2": [_PLAIN, _PLAIN | {"max_continuous_cached_steps": 1, "residual_diff_threshold": 0.3}],
    "qwen": [_PLAIN, _PLAIN | {"enable_taylorseer": True, "taylorseer_order": 2}],
    "wan": [_PLAIN, _PLAIN | {"cfg_diff_compute_separate": False}],
    "zimage": [_PLAIN],
    "hunyuan": [_PLAIN, _PLAIN | {"max_accumulated_residual_diff_threshold": 0.5}],
}


def digest(latents: Tensor) -> str:
    return hashlib.sha256(latents.contiguous().view(torch.int16).numpy().tobytes()).hexdigest()


def _record(family: str, config: dict[str, Any]) -> dict[str, Any]:
    import cache_dit
    from cache_dit.caching.cache_contexts.cache_context import CachedContext

    tiny = TinyTransformer(family, dtype=torch.bfloat16)
    model, guided = tiny.build(), family in WITH_CFG
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"cache_config": config}, file)
        file.flush()
        cache_dit.enable_cache(model, **cache_dit.load_configs(file.name))
    latents = list(tiny.denoise(model, STEPS, guided=guided))[-1]
    contexts = {}
    for found in gc.get_objects():
        if type(found) is CachedContext and found.executed_steps:
            contexts[found.name.rpartition("_")[0]] = {
                "cond": _branch(found.cached_steps, found.residual_diffs),
                **(
                    {"uncond": _branch(found.cfg_cached_steps, found.cfg_residual_diffs)}
                    if guided
                    else {}
                ),
            }
    cache_dit.disable_cache(model)
    return {
        "family": family,
        "config": config,
        "guided": guided,
        "contexts": contexts,
        "latents": digest(latents),
    }


def _branch(cached: list[int], diffs: dict[Any, float]) -> dict[str, Any]:
    return {
        "computed": "".join("0" if step in cached else "1" for step in range(STEPS)),
        "diffs": {str(step): float(diff) for step, diff in diffs.items()},
    }


def main() -> None:
    torch.set_num_threads(1)
    cases = []
    for family, configs in _CONFIGS.items():
        for config in configs:
            cases.append(_record(family, config))
            gc.collect()
    meta = {"steps": STEPS, "cpu": torch.backends.cpu.get_cpu_capability()}
    FILE.write_text(json.dumps({"meta": meta, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
