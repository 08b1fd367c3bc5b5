"""`SGLANG_CACHE_DIT_*`: SGLang's variables below a file's `cache_config`, key by key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.config.acceleration import AccelerationConfig
from planner.config.environment import apply_environment, effective_text
from planner.config.load import load
from planner.config.schema import CacheConfig, MaskBins, TargetCacheConfig
from planner.config.variables import variables_of
from planner.diagnostics import Diagnostic, Severity, has_errors

ON = {"ENABLED": "true"}


def named(variables: dict[str, str]) -> dict[str, str]:
    return {f"SGLANG_CACHE_DIT_{name}": value for name, value in variables.items()}


def loaded(variables: dict[str, str], text: str = "") -> AccelerationConfig:
    config = load(text)
    apply_environment(config, named(variables))
    return config


def cache(variables: dict[str, str], text: str = "") -> CacheConfig:
    config = loaded(ON | variables, text)
    assert not config.diagnostics
    assert config.cache is not None
    return config.cache


def only(config: AccelerationConfig) -> Diagnostic:
    (found,) = config.diagnostics
    return found


def test_enabled_alone_is_the_cache_of_sglang() -> None:
    assert cache({}) == CacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=4,
        residual_diff_threshold=0.24,
        max_continuous_cached_steps=3,
    )


@pytest.mark.parametrize("spelling", ["true", "TRUE", "1"])
def test_the_switch_is_read_as_sglang_reads_it(spelling: str) -> None:
    assert loaded({"ENABLED": spelling}).cache is not None


@pytest.mark.parametrize("spelling", ["false", "0", "False"])
def test_off_is_off(spelling: str) -> None:
    config = loaded({"ENABLED": spelling})
    assert (config.cache, config.diagnostics) == (None, [])


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("FN", "2", "Fn_compute_blocks", 2),
        ("BN", "1", "Bn_compute_blocks", 1),
        ("WARMUP", "0", "max_warmup_steps", 0),
        ("RDT", "0.4", "residual_diff_threshold", 0.4),
        ("RDT", "1", "residual_diff_threshold", 1.0),
        ("MC", "-1", "max_continuous_cached_steps", -1),
        ("TS_ORDER", "2", "taylorseer_order", 2),
        ("DMD", "1", "enable_dmd", True),
        ("DMD_HISTORY", "8", "dmd_history", 8),
        ("DMD_RANK", "3", "dmd_rank", 3),
        ("DMD_RIDGE", "1e-6", "dmd_ridge", 1e-6),
        ("DMD_SVD_PRECISION", "high", "dmd_svd_precision", "high"),
        ("SCM_POLICY", "static", "steps_computation_policy", "static"),
        ("SCM_PRESET", "fast", "steps_computation_mask", "fast"),
        ("SCM_PRESET", "none", "steps_computation_mask", None),
    ],
)
def test_every_variable_sets_its_key(name: str, text: str, key: str, value: Any) -> None:
    assert getattr(cache({name: text}), key) == value
    if name in ("FN", "BN", "WARMUP", "RDT", "MC") or name.startswith(("TS_", "DMD")):
        second = cache({f"SECONDARY_{name}": text}).secondary
        assert second is not None
        assert second.model_fields_set == {key}
        assert getattr(second, key) == value


def test_the_encoder_is_forecast_too() -> None:
    assert cache({"TAYLORSEER": "true"}).enable_encoder_taylorseer
    assert not cache({"TAYLORSEER": "false"}).enable_encoder_taylorseer
    assert cache({"SECONDARY_TAYLORSEER": "true"}).secondary == TargetCacheConfig(
        enable_taylorseer=True, enable_encoder_taylorseer=True
    )
    # A file's forecast is the file's.
    assert not cache({}, "cache_config: {enable_taylorseer: true}").enable_encoder_taylorseer
    kept = cache({"TAYLORSEER": "true"}, "cache_config: {enable_encoder_taylorseer: false}")
    assert not kept.enable_encoder_taylorseer


class TestBins:
    def test_both_lists_are_a_mask_whatever_the_preset(self) -> None:
        bins = {"SCM_COMPUTE_BINS": "8,3,3,2,2", "SCM_CACHE_BINS": "1, 2,2,2,3"}
        mask = MaskBins(compute_bins=[8, 3, 3, 2, 2], cache_bins=[1, 2, 2, 2, 3])
        for preset in ({}, {"SCM_PRESET": "none"}, {"SCM_PRESET": "fast"}):
            assert cache(bins | preset).steps_computation_mask == mask

    @pytest.mark.parametrize("name", ["SCM_COMPUTE_BINS", "SCM_CACHE_BINS"])
    def test_one_of_them_leaves_it_to_the_preset(self, name: str) -> None:
        config = loaded(ON | {name: "1,2", "SCM_PRESET": "slow"})
        found = only(config)
        assert (found.severity, found.code) == (Severity.WARNING, "one-bin-list")
        assert found.field == f"SGLANG_CACHE_DIT_{name}"
        assert config.cache is not None
        assert config.cache.steps_computation_mask == "slow"

    @pytest.mark.parametrize("text", ["", "8,", "8;3", "8,-1", "8.0", "fast", "9" * 5000])
    def test_what_does_not_parse_is_an_error(self, text: str) -> None:
        found = only(loaded(ON | {"SCM_COMPUTE_BINS": text, "SCM_CACHE_BINS": "1"}))
        assert (found.severity, found.field) == (
            Severity.ERROR,
            "SGLANG_CACHE_DIT_SCM_COMPUTE_BINS",
        )


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("ENABLED", "yes", "SGLANG_CACHE_DIT_ENABLED=true"),
        ("ENABLED", "", "SGLANG_CACHE_DIT_ENABLED=true"),
        ("TAYLORSEER", "on", "SGLANG_CACHE_DIT_TAYLORSEER=true"),
        ("SECONDARY_DMD", "2", "SGLANG_CACHE_DIT_SECONDARY_DMD=true"),
        ("FN", "two", ""),
        ("FN", "2.0", "SGLANG_CACHE_DIT_FN=2"),
        ("FN", "0", ""),
        ("BN", "-1", ""),
        ("RDT", "nan", ""),
        ("RDT", "", ""),
        ("SECONDARY_TS_ORDER", "99", ""),
        ("SCM_PRESET", "Fast", "did you mean fast?"),
        ("SCM_PRESET", "1101", ""),
        ("SCM_POLICY", "statc", "did you mean static?"),
        ("DMD_SVD_PRECISION", "hihg", "did you mean high?"),
    ],
)
def test_a_value_that_means_nothing_is_an_error(name: str, text: str, hint: str) -> None:
    found = only(loaded(ON | {name: text}))
    assert (found.severity, found.code) == (Severity.ERROR, "invalid-value")
    assert (found.field, found.line) == (f"SGLANG_CACHE_DIT_{name}", 0)
    assert found.hint == hint
    assert "allowed: " in found.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [("RTD", "RDT"), ("ENABLE", "ENABLED"), ("SECONDRY_FN", "SECONDARY_FN"), ("fn", "FN")],
)
def test_an_unknown_name_gets_its_did_you_mean(name: str, meant: str) -> None:
    found = only(loaded({name: "true"}))
    assert (found.severity, found.code) == (Severity.ERROR, "unknown-variable")
    assert found.field == f"SGLANG_CACHE_DIT_{name}"
    assert found.hint == f"did you mean SGLANG_CACHE_DIT_{meant}?"


@pytest.mark.parametrize("switch", [{}, {"ENABLED": "false"}])
def test_variables_without_the_switch_do_nothing_and_say_so(switch: dict[str, str]) -> None:
    config = loaded(switch | {"FN": "2", "RDT": "bad"})
    assert config.cache is None
    found = only(config)
    assert (found.severity, found.code) == (Severity.HINT, "variables-without-effect")
    assert "SGLANG_CACHE_DIT_FN, SGLANG_CACHE_DIT_RDT" in found.message
    assert found.hint == "SGLANG_CACHE_DIT_ENABLED=true"


def test_other_variables_are_left_aside() -> None:
    environment = {"PATH": "/bin", "SGLANG_PORT": "1"}
    assert variables_of(environment | named(ON)) == named(ON)
    config = load("")
    apply_environment(config, environment)
    assert (config.cache, config.diagnostics) == (None, [])


class TestAFileGoesFirst:
    def test_variables_fill_what_it_leaves_out(self) -> None:
        filled = cache({"FN": "2"}, "cache_config: {max_warmup_steps: 6}")
        # What neither gives has the default of the YAML: the cache is the file's.
        assert filled == CacheConfig(Fn_compute_blocks=2, max_warmup_steps=6)

    @pytest.mark.parametrize(
        "text", ["cache_config:\n  Fn_compute_blocks: 8", "\nFn_compute_blocks: 8"]
    )
    def test_its_keys_win_and_the_variable_says_so(self, text: str) -> None:
        config = loaded(ON | {"FN": "2"}, text)
        assert config.cache == CacheConfig(Fn_compute_blocks=8)
        found = only(config)
        assert (found.severity, found.code) == (Severity.HINT, "variable-overridden")
        assert (found.field, found.line) == ("SGLANG_CACHE_DIT_FN", 0)
        assert "line 2 " in found.message

    def test_its_keys_are_for_both_transformers(self) -> None:
        text = "cache_config: {Fn_compute_blocks: 8, secondary: {max_warmup_steps: 1}}"
        config = loaded(
            ON | {"SECONDARY_FN": "2", "SECONDARY_WARMUP": "3", "SECONDARY_BN": "4"}, text
        )
        assert config.cache is not None
        assert config.cache.secondary == TargetCacheConfig(max_warmup_steps=1, Bn_compute_blocks=4)
        assert [d.code for d in config.diagnostics] == ["variable-overridden"] * 2

    def test_a_file_of_other_sections_has_the_cache_of_the_variables(self) -> None:
        assert cache({}, "parallelism_config: {tp_size: 2}") == cache({})

    def test_a_broken_file_stays_as_it_is(self) -> None:
        config = loaded(ON, "cache_config: {Fn_compute_block: 1}")
        assert [d.code for d in config.diagnostics] == ["unknown-key"]
        assert config.variables == {}


class TestEffectiveText:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "parallelism_config: {tp_size: 2}\nattention_backend: native\n",
            "cache_config: {steps_computation_mask: [1, 0], dmd_ridge: 1.0e-9, enable_dmd: true}",
            "max_warmup_steps: 3",
            "{}",
        ],
    )
    def test_it_means_without_variables_what_the_text_means_with_them(self, text: str) -> None:
        variables = ON | {"FN": "2", "SECONDARY_RDT": "0.5"}
        want = loaded(variables, text)
        have = load(effective_text(text, named(variables))[0])
        assert not have.diagnostics
        assert (have.cache, have.parallelism, have.attention_backend) == (
            want.cache,
            want.parallelism,
            want.attention_backend,
        )

    @pytest.mark.parametrize(
        ("text", "variables"),
        [
            ("# as written\ncache_config: {}\n", {}),
            ("# as written\n", {"FN": "2"}),
            ("cache_config: {Fn_compute_blocks: 3}  # mine", ON | {"FN": "2"}),
            ("cache_config: {Fn: 3}", ON | {"FN": "2"}),
            ("cache_config: {}", ON | {"FN": "many"}),
        ],
    )
    def test_it_is_the_text_itself_where_no_variable_has_a_say(
        self, text: str, variables: dict[str, str]
    ) -> None:
        assert effective_text(text, named(variables))[0] == text

    def test_what_is_to_say_of_the_variables_comes_with_it(self) -> None:
        text = "cache_config: {enable_sperate_cfg: true, Fn_compute_blocks: 1}"
        _, found = effective_text(text, named(ON | {"FN": "2"}))
        assert [d.code for d in found] == ["variable-overridden"]


NAMES = ["ENABLED", "FN", "RDT", "MC", "SCM_PRESET", "SCM_COMPUTE_BINS", "SCM_CACHE_BINS"]
NAMES += ["TAYLORSEER", "SECONDARY_FN", "SECONDARY_TAYLORSEER", "DMD_SVD_PRECISION", "ANYTHING"]
VALUES = st.sampled_from(["true", "false", "1", "0", "-1", "0.5", "fast", "8,2", ""]) | st.text()


@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES),
    st.sampled_from(["", "{}", "cache_config: {Fn_compute_blocks: 2}", "[", "cache_config: 3"]),
)
def test_any_values_are_read_or_refused(variables: dict[str, str], text: str) -> None:
    for switch in ({}, ON):
        config = loaded(variables | switch, text)
        effective, _ = effective_text(text, named(variables | switch))
        if not has_errors(config.diagnostics):
            assert load(effective).cache == config.cache
        else:
            assert effective == text
