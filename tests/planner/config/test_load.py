"""A config as typed sections, and the one diagnostic of everything in it that cannot be meant."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from planner.config.acceleration import AccelerationConfig
from planner.config.load import load
from planner.config.schema import CacheConfig, MaskBins, ParallelismConfig, QuantizeConfig
from planner.diagnostics import Diagnostic, Severity


def only(config: AccelerationConfig) -> Diagnostic:
    (found,) = config.diagnostics
    return found


def place(found: Diagnostic) -> tuple[str, int, int]:
    return found.field, found.line, found.column


def cache(text: str) -> CacheConfig:
    config = load(f"cache_config: {{{text}}}")
    assert not config.diagnostics
    assert config.cache is not None
    return config.cache


def test_an_empty_text_accelerates_nothing() -> None:
    config = load("")
    assert (config.cache, config.parallelism, config.quantize) == (None, None, None)
    assert config.attention_backend == ""
    assert not config.diagnostics


def test_defaults_are_those_of_cache_dit() -> None:
    assert cache("") == CacheConfig(
        Fn_compute_blocks=8,
        Bn_compute_blocks=0,
        residual_diff_threshold=0.08,
        max_accumulated_residual_diff_threshold=None,
        max_warmup_steps=8,
        warmup_interval=1,
        max_cached_steps=-1,
        max_continuous_cached_steps=-1,
        steps_computation_mask=None,
        steps_computation_policy="dynamic",
        force_refresh_step_hint=None,
        force_refresh_step_policy="once",
        enable_taylorseer=False,
        taylorseer_order=1,
        taylorseer_cache_type="residual",
        enable_encoder_taylorseer=False,
    )
    assert ParallelismConfig() == ParallelismConfig(
        ring_rotate_method="p2p", ring_convert_to_fp32=True, extra_parallel_modules=[]
    )
    assert QuantizeConfig() == QuantizeConfig(
        quant_type="float8_per_row", exclude_layers=["embedder", "embed", "modulation", "mod"]
    )


def test_null_keeps_the_default() -> None:
    assert cache("max_warmup_steps: null, residual_diff_threshold: ~") == CacheConfig()
    assert load("attention_backend: null").attention_backend == ""


def test_sections_may_stand_together_in_any_order() -> None:
    config = load(
        "attention_backend: flash\nquantize_config: {verbose: true}\n"
        "parallelism_config: {tp_size: 2}\ncache_config: {Fn_compute_blocks: 1}\n"
    )
    assert config.cache == CacheConfig(Fn_compute_blocks=1)
    assert config.parallelism == ParallelismConfig(tp_size=2)
    assert config.quantize == QuantizeConfig(verbose=True)
    assert config.attention_backend == "flash"


@pytest.mark.parametrize(
    ("written", "mask"),
    [
        ("[1, 0, 1]", [1, 0, 1]),
        ("fast", "fast"),
        ("{compute_bins: [2, 1], cache_bins: [1]}", MaskBins(compute_bins=[2, 1], cache_bins=[1])),
    ],
)
def test_a_mask_is_a_list_a_preset_or_bins(written: str, mask: Any) -> None:
    assert cache(f"steps_computation_mask: {written}").steps_computation_mask == mask


class TestTheFlatForm:
    def test_a_whole_file_may_be_a_cache_config(self) -> None:
        config = load("Fn_compute_blocks: 2\nmax_warmup_steps: 4\n")
        assert config.flat
        assert config.cache == CacheConfig(Fn_compute_blocks=2, max_warmup_steps=4)

    def test_an_empty_mapping_is_a_cache_of_defaults(self) -> None:
        assert load("{}").cache == CacheConfig()

    def test_findings_have_places_in_the_text_and_fields_in_the_section(self) -> None:
        found = only(load("Fn_compute_blocks: 2\nmax_warmup_steps: many\n"))
        assert place(found) == ("cache_config.max_warmup_steps", 2, 19)

    def test_a_misspelt_key_gets_its_did_you_mean(self) -> None:
        found = only(load("Fn_compute_block: 2"))
        assert place(found) == ("cache_config.Fn_compute_block", 1, 1)
        assert found.hint == "did you mean Fn_compute_blocks?"

    @pytest.mark.parametrize("key", ["foo", "cache_confg", "attention_backnd", "tp_size"])
    def test_anything_else_is_no_cache_config(self, key: str) -> None:
        config = load(f"{key}: 1")
        assert not config.flat
        assert config.cache is None
        assert place(only(config)) == (key, 1, 1)

    def test_beside_a_section_a_cache_key_is_misplaced(self) -> None:
        found = only(load("attention_backend: native\nFn_compute_blocks: 1"))
        assert place(found) == ("Fn_compute_blocks", 2, 1)
        assert found.hint == "Fn_compute_blocks belongs below cache_config"


class TestOtherSpellings:
    @pytest.mark.parametrize("value", ["true", "false"])
    def test_the_documented_misspelling_is_read_with_a_warning(self, value: str) -> None:
        config = load(f"cache_config:\n  enable_sperate_cfg: {value}\n")
        found = only(config)
        assert config.cache == CacheConfig(enable_separate_cfg=value == "true")
        assert (found.severity, found.code) == (Severity.WARNING, "misspelt-key")
        assert place(found) == ("cache_config.enable_separate_cfg", 2, 3)
        assert found.hint == f"enable_separate_cfg: {value}"

    def test_a_wrong_value_of_a_misspelt_key_is_found_where_it_stands(self) -> None:
        warning, error = load("cache_config: {enable_sperate_cfg: maybe}").diagnostics
        assert warning.severity is Severity.WARNING
        assert place(error) == ("cache_config.enable_separate_cfg", 1, 36)

    def test_names_of_sizes_may_be_short(self) -> None:
        config = load("parallelism_config: {ulysses: auto, ring: 2, tp: 4}")
        assert config.parallelism == ParallelismConfig(ulysses_size="auto", ring_size=2, tp_size=4)
        assert not config.diagnostics

    @pytest.mark.parametrize("order", ["tp: 2, tp_size: 4", "tp_size: 4, tp: 2"])
    def test_two_spellings_of_one_key_exclude_each_other(self, order: str) -> None:
        found = only(load(f"parallelism_config: {{{order}}}"))
        assert (found.code, found.field, found.hint) == (
            "duplicate-key",
            "parallelism_config.tp",
            "remove tp",
        )

    @pytest.mark.parametrize("auto", ["auto", "AUTO", "Auto"])
    def test_auto_has_no_case(self, auto: str) -> None:
        config = load(f"parallelism_config: {{ulysses_size: {auto}}}")
        assert config.parallelism == ParallelismConfig(ulysses_size="auto")

    @pytest.mark.parametrize(
        ("written", "means"),
        [
            ("float8", "float8_per_row"),
            ("float8_blockwise", "float8_per_block"),
            ("int8", "int8_per_row"),
            ("INT8", "int8_per_row"),
        ],
    )
    def test_short_quantization_types_are_read_with_a_hint(self, written: str, means: str) -> None:
        config = load(f"quantize_config:\n  quant_type: {written}\n")
        found = only(config)
        assert config.quantize == QuantizeConfig(quant_type=means)  # type: ignore[arg-type]
        assert (found.severity, found.hint) == (Severity.HINT, f"quant_type: {means}")
        assert place(found) == ("quantize_config.quant_type", 2, 15)


@pytest.mark.parametrize(
    ("text", "field", "line", "column", "hint"),
    [
        ("cach_config: {}", "cach_config", 1, 1, "did you mean cache_config?"),
        ("cache_config: {}\nfoo: 1", "foo", 2, 1, "known keys: cache_config, parallelism"),
        (
            "cache_config:\n  fn_compute_blocks: 1",
            "cache_config.fn_compute_blocks",
            2,
            3,
            "did you mean Fn_compute_blocks?",
        ),
        (
            "cache_config: {warmup_intervall: 1}",
            "cache_config.warmup_intervall",
            1,
            16,
            "did you mean warmup_interval?",
        ),
        (
            "cache_config: {tp_size: 2}",
            "cache_config.tp_size",
            1,
            16,
            "tp_size belongs below parallelism_config",
        ),
        (
            "cache_config: {steps_computation_mask: {compute_bins: [1], cach_bins: []}}",
            "cache_config.steps_computation_mask.cach_bins",
            1,
            60,
            "did you mean cache_bins?",
        ),
        # Knobs that Cache-DiT has inside but offers to no YAML are as unknown as any other.
        *(
            (f"cache_config: {{{key}: 1}}", f"cache_config.{key}", 1, 16, "")
            for key in (
                "l1_hidden_states_diff_threshold",
                "important_condition_threshold",
                "downsample_factor",
            )
        ),
    ],
)
def test_unknown_keys_are_errors_with_a_way_out(
    text: str, field: str, line: int, column: int, hint: str
) -> None:
    found = only(load(text))
    assert (found.severity, found.code) == (Severity.ERROR, "unknown-key")
    assert place(found) == (field, line, column)
    assert found.hint.startswith(hint)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("cache_config", "non_prune_block_ids"),
        ("cache_config", "enable_dynamic_prune_threshold"),
        ("parallelism_config", "cp_plan"),
        ("quantize_config", "svdq_kwargs"),
        ("quantize_config", "regional_quantize"),
    ],
)
def test_keys_left_out_on_purpose_are_named(section: str, key: str) -> None:
    found = only(load(f"{section}:\n  {key}: 1"))
    assert (found.code, place(found)) == ("unsupported-key", (f"{section}.{key}", 2, 3))
    assert "support" in found.message


@pytest.mark.parametrize(
    ("text", "column", "message", "hint"),
    [
        # Types
        ("{Fn_compute_blocks: '2'}", 35, "'2' is not allowed", "Fn_compute_blocks: 2"),
        ("{Fn_compute_blocks: 2.0}", 35, "allowed: an integer >= 1", "Fn_compute_blocks: 2"),
        ("{Fn_compute_blocks: 2.5}", 35, "allowed: an integer >= 1", ""),
        ("{Fn_compute_blocks: true}", 35, "true is not allowed", ""),
        ("{Fn_compute_blocks: [2]}", 35, "[2] is not allowed", ""),
        ("{max_warmup_steps: {a: 1}}", 34, "{'a': 1} is not allowed", ""),
        ("{max_warmup_steps: 2026-01-02}", 34, "'2026-01-02' is not allowed", ""),
        ("{enable_taylorseer: 1}", 35, "allowed: true or false", ""),
        ("{enable_taylorseer: 'true'}", 35, "allowed: true or false", "enable_taylorseer: true"),
        # Numbers that YAML 1.1 takes for text
        (
            "{residual_diff_threshold: 1e-3}",
            41,
            "'1e-3' is not allowed",
            "residual_diff_threshold: 0.001",
        ),
        (
            "{residual_diff_threshold: 1e-9}",
            41,
            "allowed: a number",
            "residual_diff_threshold: 1.0e-09",
        ),
        ("{max_warmup_steps: 1e1}", 34, "allowed: an integer", "max_warmup_steps: 10"),
        ("{max_warmup_steps: 0o10}", 34, "'0o10' is not allowed", ""),
        # Ranges
        ("{Fn_compute_blocks: 0}", 35, "0 is not allowed for Fn_compute_blocks", ""),
        ("{Bn_compute_blocks: -1}", 35, "allowed: an integer >= 0", ""),
        ("{warmup_interval: 0}", 33, "allowed: an integer >= 1", ""),
        ("{taylorseer_order: 17}", 34, "allowed: an integer >= 0 and <= 16", ""),
        ("{force_refresh_step_hint: 0}", 41, "allowed: an integer >= 1", ""),
        ("{num_inference_steps: 0}", 37, "allowed: an integer >= 1", ""),
        ("{max_cached_steps: 99999999999}", 34, "<= 2147483647", ""),
        ("{residual_diff_threshold: .nan}", 41, "nan is not allowed", ""),
        ("{residual_diff_threshold: .inf}", 41, ".inf is not allowed", ""),
        ("{residual_diff_threshold: nan}", 41, "'nan' is not allowed", ""),
        ("{max_accumulated_residual_diff_threshold: -.inf}", 57, "-.inf is not allowed", ""),
        # Words
        ("{steps_computation_policy: STATIC}", 42, "dynamic or static", "did you mean static?"),
        ("{force_refresh_step_policy: twice}", 43, "once or repeat", ""),
        ("{taylorseer_cache_type: hidden}", 39, "hidden_states", "did you mean hidden_states?"),
        ("{steps_computation_mask: fsat}", 40, "allowed: slow, medium", "did you mean fast?"),
        ("{steps_computation_mask: none}", 40, "'none' is not allowed", ""),
        ("{steps_computation_mask: '1101'}", 40, "'1101' is not allowed", ""),
        # Lists
        ("{steps_computation_mask: [1, 2, x]}", 44, "2 is not allowed", ""),
        ("{steps_computation_mask: [1, true]}", 44, "steps_computation_mask[1]", ""),
        ("{steps_computation_mask: [1, [0]]}", 44, "[0] is not allowed", ""),
        (
            "{steps_computation_mask: {compute_bins: [1, -1], cache_bins: []}}",
            59,
            "-1 is not allowed for steps_computation_mask.compute_bins[1]",
            "",
        ),
        ("{steps_computation_mask: {compute_bins: [1]}}", 40, "cache_bins: [...]", ""),
        # Left out on purpose
        ("{cache_type: DBPrune}", 28, "'DBPrune' is not supported", "DBPrune has no replacement"),
        ("{cache_type: 1}", 28, "allowed: DBCache", ""),
    ],
)
def test_wrong_values_are_found_where_they_stand(
    text: str, column: int, message: str, hint: str
) -> None:
    found = only(load(f"cache_config: {text}"))
    assert found.severity is Severity.ERROR
    assert (found.line, found.column) == (1, column)
    assert message in found.message
    assert found.hint.startswith(hint)
    assert bool(found.hint) == bool(hint) or "cache_type" in text


@pytest.mark.parametrize(
    ("text", "field", "line", "column"),
    [
        ("parallelism_config:\n  ulysses_size: 0", "parallelism_config.ulysses_size", 2, 17),
        ("parallelism_config:\n  tp: two", "parallelism_config.tp_size", 2, 7),
        ("parallelism_config:\n  ring_size: '2'", "parallelism_config.ring_size", 2, 14),
        ("parallelism_config:\n  backend: none", "parallelism_config.backend", 2, 12),
        (
            "parallelism_config:\n  extra_parallel_modules:\n  - vae\n  - unet",
            "parallelism_config.extra_parallel_modules[1]",
            4,
            5,
        ),
        ("quantize_config:\n  quant_type: float9", "quantize_config.quant_type", 2, 15),
        ("quantize_config:\n  quant_type: svdq_int4_r32", "quantize_config.quant_type", 2, 15),
        ("quantize_config:\n  exclude_layers: embed", "quantize_config.exclude_layers", 2, 19),
        (
            "quantize_config:\n  exclude_layers: [embed, 1]",
            "quantize_config.exclude_layers[1]",
            2,
            27,
        ),
        ("attention_backend: [flash]", "attention_backend", 1, 20),
        ("wrong: &w 3.5\ncache_config:\n  max_warmup_steps: *w", "wrong", 1, 1),
    ],
)
def test_every_section_says_where(text: str, field: str, line: int, column: int) -> None:
    assert place(load(text).diagnostics[0]) == (field, line, column)


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("hello", "", "the value 'hello'"),
        ("3", "", "the value 3"),
        ("- a\n- b", "", "a list"),
        ("cache_config:", "cache_config", "cache_config is empty"),
        ("parallelism_config: null", "parallelism_config", "is empty"),
        ("quantize_config: float8", "quantize_config", "the value 'float8'"),
        ("cache_config: [1]", "cache_config", "is a list"),
    ],
)
def test_a_section_is_a_mapping(text: str, field: str, message: str) -> None:
    found = only(load(text))
    assert (found.code, found.field) == ("invalid-type", field)
    assert message in found.message


def test_all_faults_come_at_once() -> None:
    config = load(
        "foo: 1\ncache_config: {Fn_compute_blocks: 0, Bn_compute_blocks: -1, bar: 2}\n"
        "parallelism_config: {tp_size: 0}\nquantize_config: {quant_type: x}\n"
    )
    assert [d.field for d in config.diagnostics] == [
        "foo",
        "cache_config.bar",
        "cache_config.Fn_compute_blocks",
        "cache_config.Bn_compute_blocks",
        "parallelism_config.tp_size",
        "quantize_config.quant_type",
    ]


def test_thousands_of_unknown_keys_are_counted_not_listed() -> None:
    start = time.process_time()
    config = load("cache_config:\n" + "".join(f"  Fn_compute_block{i}: 1\n" for i in range(5000)))
    assert time.process_time() - start < 1
    assert len(config.diagnostics) == 21
    last = config.diagnostics[-1]
    assert last.message == "4980 more unknown keys"
    assert place(last) == ("cache_config.Fn_compute_block20", 22, 3)


def test_a_fault_of_the_text_itself_is_the_only_one() -> None:
    config = load("cache_config:\n  foo: [1\n")
    assert only(config).code == "yaml-syntax"
    assert config.document.value is None


given_keys = st.fixed_dictionaries(
    {},
    optional={
        "Fn_compute_blocks": st.integers(1, 99),
        "residual_diff_threshold": st.floats(-1, 2, allow_nan=False),
        "max_cached_steps": st.none() | st.integers(-1, 99),
        "steps_computation_mask": st.sampled_from(["slow", [1, 0], None]),
        "enable_taylorseer": st.booleans(),
    },
)


@given(given_keys)
@example({"residual_diff_threshold": 1e-05})
@example({"residual_diff_threshold": -5e-324})
def test_json_and_yaml_of_the_same_values_are_the_same_config(keys: dict[str, Any]) -> None:
    from_json = load(json.dumps({"cache_config": keys}, indent="\t"))
    block = load(yaml.safe_dump({"cache_config": keys}))
    flow = load(yaml.safe_dump({"cache_config": keys}, default_flow_style=True))
    assert from_json.cache is not None
    assert from_json.cache == block.cache == flow.cache


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("max_warmup_steps: 010", "010 is read as 8, as YAML 1.1 has it", "max_warmup_steps: 8"),
        ("{max_warmup_steps: 1:30}", "1:30 is read as 90, as YAML 1.1 has it", "max_warmup_steps"),
        ("cache_config:\n  max_cached_steps: -017", "-017 is read as -15", "max_cached_steps: -15"),
    ],
)
def test_a_number_that_is_not_what_it_looks_like(text: str, says: str, hint: str) -> None:
    (found,) = load(text).diagnostics
    assert (found.severity, found.code) == (Severity.WARNING, "odd-number")
    assert found.message.startswith(says)
    assert found.hint.startswith(hint)
    assert found.line == text.count("\n") + 1


@pytest.mark.parametrize("number", ["0", "-0", "10", "0x10", "1_000", "0b11"])
def test_other_numbers_are_plain(number: str) -> None:
    assert load(f"max_warmup_steps: {number}").diagnostics == []


@pytest.mark.parametrize(
    "text",
    [
        "quantize_config: {per_tensor_fallback: true, regional_quantize: true, backend: TorchAO}",
        "quantize_config: {repeated_blocks: [], filter_fn: null, svdq_kwargs: {}}",
        "parallelism_config: {use_ray: false, extra_parallel_kwargs: {}, cp_plan: ~}",
        "cache_config: {enable_dynamic_prune_threshold: false, non_prune_block_ids: []}",
    ],
)
def test_an_unsupported_key_may_say_what_is_done_anyway(text: str) -> None:
    assert load(text).diagnostics == []


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("{per_tensor_fallback: false}", "per_tensor_fallback other than true", "per_tensor_fall"),
        ("{per_tensor_fallback: 1}", "per_tensor_fallback other than true", "per_tensor_fallback"),
        ("{backend: svdq}", "SVDQuant, which ditplan does not support", "backend: 'auto'"),
        ("{svdq_kwargs: {rank: 32}}", "SVDQuant, which ditplan does not support", "svdq_kwargs"),
        ("{serialize_to: x}", "SVDQuant, which ditplan does not support", "remove serialize_to"),
        ("{components_to_quantize: vae}", "'vae' is not allowed", "components_to_quantize: [vae]"),
        ("{precision_plan: {attn: float9}}", "'float9' is not allowed", "did you mean float8?"),
    ],
)
def test_what_of_a_quantization_is_not_supported_is_said_by_name(
    text: str, says: str, hint: str
) -> None:
    (found,) = load(f"quantize_config: {text}").diagnostics
    assert found.severity is Severity.ERROR
    assert says in found.message
    assert found.hint.startswith(hint)
