"""The sections of an acceleration config: every key, its type, its range, its default, its sense.

Names, defaults and meanings are those of Cache-DiT's YAML, as SGLang Diffusion documents it.
docs/yaml.md is made of what stands here (``schema_page.py``).
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
        list[Annotated[int, Field(ge=0, le=MAX_INT)]],
        Field(
            min_length=1,
            max_length=1000,
            description="Lengths of the runs of computed steps; the first run begins the mask.",
        ),
    ]
    cache_bins: Annotated[
        list[Annotated[int, Field(ge=0, le=MAX_INT)]],
        Field(max_length=1000, description="Lengths of the runs of cached steps between them."),
    ]


class TargetCacheConfig(Section):
    """What of a ``cache_config`` each transformer of a pipeline may have for itself."""

    Fn_compute_blocks: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_INT,
            description="Blocks at the start of the block lists that every step computes. "
            "What they add to the hidden stream is what is compared from step to "
            "step (the residual diff).",
        ),
    ] = 8
    Bn_compute_blocks: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_INT,
            description="Blocks at the end that every step computes: they refine what the "
            "cache predicts.",
        ),
    ] = 0
    residual_diff_threshold: Annotated[
        float,
        Field(
            description="A step is cached while its residual diff to the last computed step "
            "is below this; at 0 or less none is, at 1 or more all are that "
            "nothing else keeps."
        ),
    ] = 0.08
    max_accumulated_residual_diff_threshold: Annotated[
        float | None,
        Field(
            description="Once the residual diffs of a run add up to this, all that follows is "
            "computed; without effect at 0 or less."
        ),
    ] = None
    max_warmup_steps: Annotated[
        Count,
        Field(
            description="The steps before this one are warm-up and are computed; at 0 or less "
            "there is none. A mask ends it where it has its first 0."
        ),
    ] = 8
    warmup_interval: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_INT,
            description="Every how many steps of the warm-up one is computed for sure; the "
            "others may be cached like any other.",
        ),
    ] = 1
    max_cached_steps: Annotated[
        Count,
        Field(
            description="Most cached steps of a run and branch; 0 caches none, below 0 there "
            "is no limit."
        ),
    ] = -1
    max_continuous_cached_steps: Annotated[
        Count,
        Field(description="Most cached steps in a row; 0 caches none, below 0 there is no limit."),
    ] = -1
    enable_taylorseer: Annotated[
        bool,
        Field(
            description="Cached steps get what a Taylor expansion (TaylorSeer) forecasts, not "
            "the last computed values."
        ),
    ] = False
    taylorseer_order: Annotated[
        int, Field(ge=0, le=16, description="Order of the expansion; 0 is plain reuse.")
    ] = 1
    taylorseer_cache_type: Annotated[
        Literal["residual", "hidden_states"],
        Field(
            description="What TaylorSeer forecasts: what the cached blocks add, or what they "
            "end with."
        ),
    ] = "residual"
    enable_encoder_taylorseer: Annotated[
        bool, Field(description="TaylorSeer forecasts the encoder (prompt) stream, too.")
    ] = False
    enable_dmd: Annotated[
        bool,
        Field(
            description="Cached steps get what a dynamic mode decomposition of the last "
            "computed values forecasts."
        ),
    ] = False
    dmd_history: Annotated[
        int, Field(ge=1, le=1000, description="How many computed values the decomposition sees.")
    ] = 6
    dmd_rank: Annotated[
        int, Field(ge=0, le=1000, description="Modes that it keeps; 0: as many as matter.")
    ] = 0
    dmd_ridge: Annotated[
        float,
        Field(
            ge=0,
            description="Added to its singular values before they are inverted, so that small "
            "ones do no harm.",
        ),
    ] = 1e-8
    dmd_svd_precision: Annotated[
        Literal["low", "medium", "high"], Field(description="How its singular values are found.")
    ] = "medium"
    enable_encoder_dmd: Annotated[
        bool | None,
        Field(
            description="DMD forecasts the encoder stream, too; as enable_dmd where it is left out."
        ),
    ] = None
    enable_foca: Annotated[
        bool,
        Field(
            description="Cached steps get what FoCa forecasts from the last two computed "
            "values and the last two used."
        ),
    ] = False
    enable_encoder_foca: Annotated[
        bool, Field(description="FoCa forecasts the encoder stream, too.")
    ] = False
    calibrator_cache_type: Annotated[
        Literal["residual", "hidden_states"],
        Field(
            description="What DMD or FoCa forecasts: what the cached blocks add, or what they "
            "end with."
        ),
    ] = "residual"


class CacheConfig(TargetCacheConfig):
    """``cache_config``: DBCache, its calibrator and the steps computation mask (SCM)."""

    cache_type: Annotated[
        Literal["DBCache"],
        Field(description="The kind of cache. Only DBCache is there; files need not say so."),
    ] = "DBCache"
    enable_separate_cfg: Annotated[
        bool | None,
        Field(
            description="Whether the forwards with and without guidance have caches of their "
            "own. Accepted; they do wherever a request runs two."
        ),
    ] = None
    cfg_compute_first: Annotated[
        bool, Field(description="Of the two forwards of a step the unconditional one comes first.")
    ] = False
    cfg_diff_compute_separate: Annotated[
        bool,
        Field(
            description="Each of the two forwards is judged by a residual diff of its own; "
            "else the second takes that of the first."
        ),
    ] = True
    num_inference_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_INT,
            description="The number of steps that the file is meant for. Where a request has "
            "another, the request wins.",
        ),
    ] = None
    steps_computation_mask: Annotated[
        list[Binary] | Literal["slow", "medium", "fast", "ultra"] | MaskBins | None,
        Field(
            description="Steps computation mask (SCM): which steps may be cached (0) and "
            "which are computed (1). A preset is laid out for the steps of the "
            "request; bins are runs of computed and cached steps in turn.",
            json_schema_extra={
                "allowed": "slow, medium, fast, ultra, a list of 0 and 1, or "
                "{compute_bins: [...], cache_bins: [...]} with counts of at least 0"
            },
        ),
    ] = None
    steps_computation_policy: Annotated[
        Literal["dynamic", "static"],
        Field(
            description="What a 0 of the mask means: under dynamic DBCache decides, so that "
            "more steps than the mask's are computed; under static the step is "
            "cached whatever the threshold and the limits say."
        ),
    ] = "dynamic"
    force_refresh_step_hint: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_INT,
            description="After this many forwards of the transformer (two a step with "
            "guidance) the cache is forgotten and begins anew, warm-up included.",
        ),
    ] = None
    force_refresh_step_policy: Annotated[
        Literal["once", "repeat"],
        Field(description="Whether it is forgotten once in a run, or every so many forwards."),
    ] = "once"
    secondary: Annotated[
        TargetCacheConfig | None,
        Field(
            description="What is different for the second transformer of a model (Wan 2.2): the "
            "keys that each transformer can have for itself. ditplan's own key."
        ),
    ] = None


class ParallelismConfig(Section):
    """``parallelism_config``: how ranks share the forwards of a step."""

    backend: Annotated[
        Literal["auto", "cache_dit", "native_diffuser", "native_pytorch", "native_hybrid"],
        Field(
            description="Cache-DiT's name of what the sizes make. Accepted where it is the "
            "right one."
        ),
    ] = "auto"
    ulysses_size: Annotated[
        Size,
        Field(
            description="Ranks that share the attention heads; each has a part of the tokens "
            "elsewhere. auto: what the other sizes leave."
        ),
    ] = None
    ring_size: Annotated[
        Size,
        Field(
            description="Ranks that hold parts of the tokens and attend to each other's in a "
            "ring. auto: what the other sizes leave."
        ),
    ] = None
    tp_size: Annotated[
        Size,
        Field(
            description="Ranks that share the weights of every layer (tensor parallelism); "
            "fixed when weights are loaded. auto: what the other sizes leave."
        ),
    ] = None
    guidance_size: Annotated[
        int,
        Field(
            ge=1,
            le=2,
            description="2: one half of the ranks runs the forward with the prompt, the other "
            "the one with the negative prompt. ditplan's own key.",
        ),
    ] = 1
    attention_backend: Annotated[
        AttentionBackend | None,
        Field(description="As the key beside the sections, before which it goes."),
    ] = None
    ulysses_anything: Annotated[
        bool,
        Field(
            description="Tokens and heads need not divide by ulysses_size: the first ranks "
            "get one more."
        ),
    ] = False
    ulysses_float8: Annotated[
        bool, Field(description="What Ulysses exchanges is sent as 8-bit numbers.")
    ] = False
    ulysses_async: Annotated[
        bool, Field(description="One half of the heads travels while the other is attended to.")
    ] = False
    ring_rotate_method: Annotated[
        Literal["p2p", "allgather"],
        Field(
            description="p2p: keys and values go round from neighbour to neighbour; "
            "allgather: every rank gets all of them at once."
        ),
    ] = "p2p"
    ring_convert_to_fp32: Annotated[
        bool, Field(description="Partial results of a ring are merged in float32.")
    ] = True
    extra_parallel_modules: Annotated[
        list[Literal["text_encoder", "text_encoder_2", "text_encoder_3", "image_encoder", "vae"]],
        Field(
            description="Other components that the ranks share: text encoders by their "
            "weights, the VAE by its tiles."
        ),
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

    quant_type: Annotated[QuantType | None, Field(description="The type of this component.")] = None
    exclude_layers: Annotated[
        NameParts | None,
        Field(
            description="Layers of this component that stay as they are.",
            json_schema_extra={"allowed": f"a list of {_PARTS}"},
        ),
    ] = None


class QuantizeConfig(Section):
    """``quantize_config``: torchao quantization of the transformer weights."""

    quant_type: Annotated[
        QuantType,
        Field(description="What weights become, and activations unless it is a weight_only type."),
    ] = "float8_per_row"
    exclude_layers: Annotated[
        NameParts,
        Field(
            description="Layers whose name contains one of these stay as they are. A list "
            "takes the place of the default's.",
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
            description="The components that are quantized, as a list, or as a mapping where "
            "they differ; the transformers where it is left out.",
            json_schema_extra={
                "allowed": "a list of components (transformer, text_encoder, vae, ...), or "
                "{component: {quant_type: ..., exclude_layers: [...]}}"
            },
        ),
    ] = None
    precision_plan: Annotated[
        Annotated[dict[NamePart, QuantType], Field(max_length=1024)] | None,
        Field(
            description="A type for the layers whose name contains a text; of several the "
            "longest decides.",
            json_schema_extra={"allowed": "{part of a layer's name: a quant_type, ...}"},
        ),
    ] = None
    verbose: Annotated[
        bool, Field(description="Plan and executor list what becomes of every layer.")
    ] = False


class TopLevel(Section):
    """What stands beside the sections."""

    attention_backend: Annotated[
        AttentionBackend | None,
        Field(
            description="The kernel of attention, by its name in diffusers; native (PyTorch's "
            "own) where it is left out."
        ),
    ] = None
