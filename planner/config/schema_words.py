"""The prose of docs/yaml.md, and the config that it shows of every section."""

from __future__ import annotations

from collections.abc import Mapping

from planner.config import document, environment

_EXAMPLES = "../deploy/examples"
VARIABLES_WITHOUT_KEY = {
    "ENABLED": "true or false: whether the others count",
    "SCM_PRESET": "`steps_computation_mask`: slow, medium, fast, ultra, or none for no mask",
    "SCM_COMPUTE_BINS": "`steps_computation_mask.compute_bins`, as `8,3,3,2`; goes before the "
    "preset",
    "SCM_CACHE_BINS": "`steps_computation_mask.cache_bins`, likewise",
}

TOP = f"""\
# The YAML of a config

`ditplan schema --format markdown` prints this page, `ditplan schema` the same as JSON Schema, for
editors.

A config is YAML 1.1 or JSON in the format of Cache-DiT and SGLang Diffusion. It has up to four
keys at the top, each of which may be left out:

| key | what it says | examples |
| --- | --- | --- |
| [`cache_config`](#cache_config) | which steps are computed and which come from the cache | \
[cache.yaml]({_EXAMPLES}/cache.yaml), [cache-scm.yaml]({_EXAMPLES}/cache-scm.yaml) |
| [`parallelism_config`](#parallelism_config) | how ranks share a run | \
[parallel.yaml]({_EXAMPLES}/parallel.yaml), [parallel-3d.yaml]({_EXAMPLES}/parallel-3d.yaml) |
| [`quantize_config`](#quantize_config) | what weights become when they are loaded | \
[quantize.yaml]({_EXAMPLES}/quantize.yaml) |
| [`attention_backend`](#attention_backend) | the kernel of attention | \
[attention.yaml]({_EXAMPLES}/attention.yaml) |

[combined.yaml]({_EXAMPLES}/combined.yaml) has several. A file without any of them is read as a
`cache_config` (the old flat form). An empty file is no acceleration at all.

- A key of a section without a value, or with `null`, keeps its default; a section has to be a
  mapping, `{{}}` at least.
- Types are strict: `"0.12"` is no number, `1` no truth value, `8.0` no integer. Numbers are finite.
- Nothing is ignored. What is refused comes with line and column, a code in brackets and what to
  write instead; what only surprises is a warning, and what has no effect a hint.
- `ditplan preview CONFIG --model MODEL` shows what follows from a file, `--sources` where every
  value comes from.

A text has at most {document.MAX_CONFIG_BYTES // 1024} KiB, {document.MAX_DEPTH} levels and \
{document.MAX_VALUES:,} values, keys of {document.MAX_KEY_LENGTH} characters and numbers of \
{document.MAX_NUMBER_LENGTH}.
What is refused of any:
"""

CACHE = """\
DBCache looks at the first blocks of a step: where what they add has changed little since the last
computed step, the blocks after them are passed over and their part is taken from the cache, as it
was or as a forecast says. `cache_config: {}` is enough to have it, with the defaults below.
"""

_CACHE_EXAMPLE = """\
cache_config:
  Fn_compute_blocks: 1
  residual_diff_threshold: 0.12
  max_warmup_steps: 8
  warmup_interval: 2
  max_continuous_cached_steps: 2
  enable_taylorseer: true
  steps_computation_mask: {compute_bins: [8, 2, 2, 1], cache_bins: [3, 5, 7]}
  steps_computation_policy: static
  secondary:
    residual_diff_threshold: 0.2
"""

PARALLEL = """\
The sizes multiply to the number of ranks; what is left out is 1. [parallel.md](parallel.md) says
what ranks share and exchange.
"""

_PARALLEL_EXAMPLE = """\
parallelism_config:
  ulysses_size: auto
  tp_size: 2
  ulysses_float8: true
  extra_parallel_modules: [text_encoder, vae]
"""

QUANTIZE = """\
Weights are quantized by torchao when they are loaded. [placement.md](placement.md#quantize_config)
says what each type is, which device it needs, and how an executor is started for it.
"""

_QUANTIZE_EXAMPLE = """\
quantize_config:
  quant_type: int8_per_row
  exclude_layers: [embed, norm]
  components_to_quantize:
    transformer:
    text_encoder: {quant_type: int8_weight_only}
  precision_plan: {ff.net: float8_weight_only}
"""

_ATTENTION_EXAMPLE = """\
attention_backend: _native_flash
"""

VARIABLES = f"""\
They are SGLang's, and fill in what the `cache_config` of a file leaves out: a file goes before
them, key by key. They count once `{environment.PREFIX}ENABLED` is true. Without a `cache_config`
in the file, what no variable sets has SGLang's default below, not the one of the YAML.
`{environment.PREFIX}TAYLORSEER` forecasts the encoder stream, too, unless the file says otherwise.

Each of those marked \\* is there as `{environment.PREFIX}SECONDARY_...` too, for the second
transformer: the key of the same name below `cache_config.secondary`.
"""

EXAMPLES: Mapping[str, str] = {
    "cache_config": _CACHE_EXAMPLE,
    "parallelism_config": _PARALLEL_EXAMPLE,
    "quantize_config": _QUANTIZE_EXAMPLE,
    "attention_backend": _ATTENTION_EXAMPLE,
}
"""The config that the page shows of every section."""
