"""The sections of an acceleration config: every key, its type, its range, its default.

Names, defaults and meanings are those of Cache-DiT's YAML, as SGLang Diffusion documents it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.config.attention import AttentionBackend

MAX_INT = 2**31 - 1

Count = Annotated[int, Field(ge=-MAX_INT, le=MAX_INT)]
Size = Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] | None
Binary = Annotated[int, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class MaskBins(Section):
    """A custom steps computation mask: runs of computed and cached steps in turn."""

    compute_bins: Annotated[
        list[Annotated[int, Field(ge=0, le=MAX_INT)]], Field(min_length=1, max_length=1000)
    ]
    cache_bins: Annotated[list[Annotated[int, Field(ge=0, le=MAX_INT)]], Field(max_length=1000)]


class TargetCacheConfig(Section):
    """What of a ``cache_config`` each transformer of a pipeline may have for itself."""

    Fn_compute_blocks: Annotated[
        int, Field(ge=1, le=MAX_INT, description="First blocks that are always computed.")
    ] = 8
    Bn_compute_blocks: Annotated[
        int, Field(ge=0, le=MAX_INT, description="Last blocks that are always computed.")
    ] = 0
    residual_diff_threshold: Annotated[
        float,
        Field(description="A step is cached while its residual diff is below; <= 0 never caches."),
    ] = 0.08
    max_accumulated_residual_diff_threshold: Annotated[
        float | None, Field(description="Caching ends once the summed residual diffs reach this.")
    ] = None
    max_warmup_steps: Annotated[
        Count, Field(description="Steps before which warm-up computes; <= 0: no warm-up.")
    ] = 8
    warmup_interval: Annotated[
        int, Field(ge=1, le=MAX_INT, description="Every how many warm-up steps one is computed.")
    ] = 1
    max_cached_steps: Annotated[
        Count, Field(description="Most cached steps of a run; < 0: unlimited.")
    ] = -1
    max_continuous_cached_steps: Annotated[
        Count, Field(description="Most cached steps in a row; < 0: unlimited.")
    ] = -1
    enable_taylorseer: Annotated[
        bool, Field(description="Forecast cached steps by a Taylor expansion.")
    ] = False
    taylorseer_order: Annotated[
        int, Field(ge=0, le=16, description="Order of the expansion; 0 reuses the last value.")
    ] = 1
    taylorseer_cache_type: Annotated[
        Literal["residual", "hidden_states"], Field(description="What is forecast.")
    ] = "residual"
    enable_encoder_taylorseer: Annotated[
        bool, Field(description="Forecast the encoder stream too.")
    ] = False
    enable_dmd: Annotated[
        bool, Field(description="Forecast cached steps by dynamic mode decomposition.")
    ] = False
    dmd_history: Annotated[
        int, Field(ge=1, le=1000, description="Computed values that the decomposition sees.")
    ] = 6
    dmd_rank: Annotated[
        int, Field(ge=0, le=1000, description="Modes that are kept; 0: as many as matter.")
    ] = 0
    dmd_ridge: Annotated[
        float, Field(ge=0, description="Added to singular values before they are inverted.")
    ] = 1e-8
    dmd_svd_precision: Annotated[
        Literal["low", "medium", "high"], Field(description="How singular values are found.")
    ] = "medium"
    enable_encoder_dmd: Annotated[
        bool | None,
        Field(description="Forecast the encoder stream too; as enable_dmd if left out."),
    ] = None
    enable_foca: Annotated[bool, Field(description="Forecast cached steps by FoCa.")] = False
    enable_encoder_foca: Annotated[bool, Field(description="Forecast the encoder stream too.")] = (
        False
    )
    calibrator_cache_type: Annotated[
        Literal["residual", "hidden_states"], Field(description="What DMD or FoCa forecasts.")
    ] = "residual"


class CacheConfig(TargetCacheConfig):
    """``cache_config``: DBCache, its calibrator and the steps computation mask (SCM)."""

    cache_type: Annotated[Literal["DBCache"], Field(description="The cache; only DBCache.")] = (
        "DBCache"
    )
    enable_separate_cfg: Annotated[
        bool | None, Field(description="Accepted; the request's guidance decides.")
    ] = None
    cfg_compute_first: Annotated[
        bool, Field(description="The unconditional forward comes first.")
    ] = False
    cfg_diff_compute_separate: Annotated[
        bool, Field(description="Each branch computes a residual diff of its own.")
    ] = True
    num_inference_steps: Annotated[
        int | None, Field(ge=1, le=MAX_INT, description="Steps the mask is meant for.")
    ] = None
    steps_computation_mask: Annotated[
        list[Binary] | Literal["slow", "medium", "fast", "ultra"] | MaskBins | None,
        Field(
            description="SCM: which steps may be cached.",
            json_schema_extra={
                "allowed": "slow, medium, fast, ultra, a list of 0 and 1, or "
                "{compute_bins: [...], cache_bins: [...]} with counts of at least 0"
            },
        ),
    ] = None
    steps_computation_policy: Annotated[
        Literal["dynamic", "static"],
        Field(description="dynamic: masked steps follow DBCache; static: they are cached."),
    ] = "dynamic"
    force_refresh_step_hint: Annotated[
        int | None,
        Field(ge=1, le=MAX_INT, description="Forget the cache after this many forwards."),
    ] = None
    force_refresh_step_policy: Annotated[
        Literal["once", "repeat"], Field(description="Once, or every so many forwards.")
    ] = "once"
    secondary: Annotated[
        TargetCacheConfig | None,
        Field(description="What differs for a second transformer; ditplan's own key."),
    ] = None


class ParallelismConfig(Section):
    """``parallelism_config``: how ranks share the forwards of a step."""

    backend: Annotated[
        Literal["auto", "cache_dit", "native_diffuser", "native_pytorch", "native_hybrid"],
        Field(description="Accepted; the sizes decide."),
    ] = "auto"
    ulysses_size: Annotated[Size, Field(description="Ranks that share the heads.")] = None
    ring_size: Annotated[Size, Field(description="Ranks that share the sequence in a ring.")] = None
    tp_size: Annotated[Size, Field(description="Ranks that share the weights.")] = None
    guidance_size: Annotated[
        int,
        Field(
            ge=1,
            le=2,
            description="2: each half of the ranks runs one forward of a step; ditplan's own key.",
        ),
    ] = 1
    attention_backend: Annotated[AttentionBackend | None, Field(description="As at top level.")] = (
        None
    )
    ulysses_anything: Annotated[bool, Field(description="Sequences and heads need not divide.")] = (
        False
    )
    ulysses_float8: Annotated[bool, Field(description="FP8 payload of the all-to-all.")] = False
    ulysses_async: Annotated[bool, Field(description="Overlap projection and all-to-all.")] = False
    ring_rotate_method: Annotated[
        Literal["p2p", "allgather"], Field(description="How the ring passes keys and values on.")
    ] = "p2p"
    ring_convert_to_fp32: Annotated[bool, Field(description="Merge ring chunks in fp32.")] = True
    extra_parallel_modules: Annotated[
        list[Literal["text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder", "vae"]],
        Field(description="Other components that are parallel too."),
    ] = []


QuantType = Literal[
    "float8_per_row",
    "float8_per_tensor",
    "float8_per_block",
    "float8_weight_only",
    "int8_per_row",
    "int8_per_tensor",
    "int8_weight_only",
    "int4_weight_only",
    "nvfp4",
    "nvfp4_weight_only",
]
Component = Literal[
    "transformer",
    "transformer_2",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "image_encoder",
    "vae",
]
# An empty text is part of every name. With these bounds whoever holds it can be told of it.
NamePart = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[ -~]+$")]
NameParts = Annotated[list[NamePart], Field(max_length=1024)]


_PARTS = "at most 1024 texts of 1 to 128 plain characters"


class ComponentQuantizeConfig(Section):
    """How one component is quantized; what is left out is as for all of them."""

    quant_type: QuantType | None = None
    exclude_layers: Annotated[
        NameParts | None,
        Field(json_schema_extra={"allowed": f"a list of {_PARTS}"}),
    ] = None


class QuantizeConfig(Section):
    """``quantize_config``: torchao quantization of the transformer weights."""

    quant_type: Annotated[
        QuantType,
        Field(description="What weights (and activations, unless weight_only) become."),
    ] = "float8_per_row"
    exclude_layers: Annotated[
        NameParts,
        Field(
            description="Layers whose name contains one of these stay as they are.",
            json_schema_extra={
                "allowed": f"a list of {_PARTS} (an empty one would be part of every name)"
            },
        ),
    ] = ["embedder", "embed", "modulation", "mod"]
    components_to_quantize: Annotated[
        Annotated[list[Component], Field(min_length=1)]
        | Annotated[dict[Component, ComponentQuantizeConfig | None], Field(min_length=1)]
        | None,
        Field(
            description="The components that are quantized; every transformer if it is left out.",
            json_schema_extra={
                "allowed": "a list of components (transformer, text_encoder, vae, ...), or "
                "{component: {quant_type: ..., exclude_layers: [...]}}"
            },
        ),
    ] = None
    precision_plan: Annotated[
        Annotated[dict[NamePart, QuantType], Field(max_length=1024)] | None,
        Field(
            description="Layers whose name contains a key get its type; the longest key decides.",
            json_schema_extra={"allowed": "{part of a layer's name: a quant_type, ...}"},
        ),
    ] = None
    verbose: Annotated[bool, Field(description="List what was quantized and what was not.")] = False


class TopLevel(Section):
    """What stands beside the sections."""

    attention_backend: Annotated[
        AttentionBackend | None,
        Field(description="Name of the attention backend; the model's own if it is left out."),
    ] = None
