"""What of a config is refused or warned of, and why: the codes of diagnostics, for docs/yaml.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """A code of an error or, if it is not ``refused``, of a warning; ``keys`` is Markdown."""

    code: str
    keys: str
    why: str
    refused: bool = True


def _warned(code: str, keys: str, why: str) -> Fault:
    return Fault(code, keys, why, refused=False)


TEXT = (
    Fault("yaml-syntax", "the text", "no YAML, no UTF-8, or a key that is no plain text"),
    Fault("yaml-tag", "the text", "a tag of YAML that makes more than plain data"),
    Fault("yaml-alias", "the text", "an alias that makes a value contain itself"),
    Fault("yaml-value", "the text", "a number, date or truth value that cannot be read as one"),
    Fault("config-too-large", "the text", "beyond the bounds above; aliases count expanded"),
    Fault("config-too-deep", "the text", "nested deeper than the bound above"),
    Fault(
        "duplicate-key",
        "any key",
        "a key twice in a mapping, or in two spellings: which one counts?",
    ),
    Fault("unknown-key", "any key", "nothing would follow from it; the nearest known key is named"),
    Fault("unsupported-key", "any key", "a key of Cache-DiT that ditplan has no use for (below)"),
    Fault(
        "unsupported-value", "any value", "a value of Cache-DiT that ditplan has no use for (below)"
    ),
    Fault("invalid-type", "any value", "a text, list or number where a mapping has to be"),
    Fault("invalid-value", "any value", "another type, or a value that is not allowed"),
    _warned("odd-number", "any value", "YAML 1.1 reads `010` as 8 and `1:30` as 90"),
    _warned(
        "misspelt-key", "any key", "a misspelling that is in circulation is read as what it means"
    ),
)

SECTIONS: Mapping[str, tuple[Fault, ...]] = {
    "cache_config": (
        Fault(
            "too-many-compute-blocks",
            "`Fn_compute_blocks`, `Bn_compute_blocks`",
            "together more than the blocks of a list: some would run twice",
        ),
        Fault(
            "several-calibrators",
            "`enable_taylorseer`, `enable_dmd`, `enable_foca`",
            "one step can have one forecast",
        ),
        Fault(
            "cfg-compute-first",
            "`cfg_compute_first`",
            "needs `cfg_diff_compute_separate: false`, as in Cache-DiT",
        ),
        Fault(
            "diff-of-other-ranks",
            "`cfg_diff_compute_separate`",
            "`false` with `guidance_size: 2`: both forwards run at once, none can wait for the "
            "residual diff of the other",
        ),
        Fault(
            "refresh-within-step",
            "`force_refresh_step_hint`",
            "it counts forwards; with two a step an odd one would be in the middle of a step",
        ),
        Fault(
            "mask-length",
            "`steps_computation_mask`",
            "a list with more or fewer entries than the run has steps",
        ),
        Fault("bins-too-short", "`steps_computation_mask`", "bins that end before the run does"),
        Fault(
            "mask-starts-cached",
            "`steps_computation_mask`",
            "a cached step before which nothing was computed that it could reuse",
        ),
        _warned("bins-too-long", "`steps_computation_mask`", "what is beyond the run is cut off"),
        _warned(
            "last-step-cached",
            "`steps_computation_mask`",
            "no later step corrects what the last one got wrong",
        ),
        _warned(
            "scm-disabled",
            "`steps_computation_mask`",
            "presets are defined for 4, 6 and at least 8 steps; DBCache goes on without",
        ),
        _warned(
            "mask-not-reached",
            "`steps_computation_mask`",
            "under the dynamic policy a limit or the warm-up computes more than the mask; the "
            "keys that do are named, with the fewest and most steps",
        ),
        _warned(
            "never-cached", "the section", "every step is computed; the key that does it is named"
        ),
        _warned(
            "other-step-count",
            "`num_inference_steps`",
            "the file says one number of steps, the request another: the request wins",
        ),
        _warned(
            "two-branches",
            "`enable_separate_cfg`",
            "`false`, and the request runs two forwards a step, which never share a cache",
        ),
        _warned("no-second-transformer", "`secondary`", "the model has one transformer"),
    ),
    "parallelism_config": (
        Fault(
            "idle-ranks", "the section", "several ranks and no section that says what they share"
        ),
        Fault("no-parallelism", "sizes", "every size is 1"),
        Fault(
            "sizes-do-not-cover",
            "sizes",
            "they do not multiply to the number of ranks; those that would are named",
        ),
        Fault("several-auto-sizes", "sizes", "only one can follow from the others"),
        Fault(
            "world-size-unknown",
            "sizes",
            "`auto` without a number of ranks (`--num-gpus`, or an executor's)",
        ),
        Fault("other-backend", "`backend`", "the sizes make another one"),
        Fault(
            "heads-do-not-divide",
            "`ulysses_size`, `tp_size`",
            "each rank needs whole heads, and as many as the others unless `ulysses_anything`",
        ),
        Fault("width-does-not-divide", "`tp_size`", "the inputs of a layer do not divide by it"),
        Fault(
            "sequence-does-not-divide",
            "`ulysses_size`, `ring_size`",
            "each rank needs as many tokens as the others unless `ulysses_anything`",
        ),
        Fault(
            "anything-with-ring",
            "`ulysses_anything`",
            "chunks that go round in a ring are of one size",
        ),
        Fault(
            "flag-without-ulysses",
            "`ulysses_anything`, `ulysses_float8`, `ulysses_async`",
            "in a ring alone there is nothing for it to act on (with `tp_size` alone a warning)",
        ),
        Fault(
            "one-forward",
            "`guidance_size`",
            "`2`, and model or request run one forward a step: half of the ranks would be idle",
        ),
        _warned(
            "no-such-module",
            "`extra_parallel_modules`",
            "the model has no such component",
        ),
    ),
    "quantize_config": (
        Fault("no-such-component", "`components_to_quantize`", "the model has none of that name"),
        Fault(
            "quantized-dtype",
            "`quant_type`",
            "it is made of bfloat16 weights, and those of the executor are not",
        ),
        Fault(
            "device-capability",
            "`quant_type`",
            "the device has no such arithmetic; also where it cannot run an attention backend",
        ),
        _warned("no-such-layer", "`precision_plan`", "no layer of the blocks has such a name"),
    ),
    "attention_backend": (
        Fault(
            "masked-attention",
            "the name",
            "the model masks its prompts, which the backend cannot; it would fail in the first "
            "forward",
        ),
        Fault(
            "unmerged-attention",
            "the name",
            "a ring with `ring_rotate_method: p2p` merges partial results, which the backend does "
            "not give",
        ),
        _warned(
            "two-attention-backends",
            "the name",
            "the one in `parallelism_config` wins over the one beside the sections",
        ),
    ),
    "variables": (
        Fault("unknown-variable", "any variable", "a name with the prefix that is none of these"),
        _warned(
            "one-bin-list",
            "`SCM_COMPUTE_BINS`, `SCM_CACHE_BINS`",
            "one without the other says nothing; the preset decides",
        ),
    ),
}
