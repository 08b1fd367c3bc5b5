"""The JSON document has the same keys in every case and omits what does not apply."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from planner.compile.compiler import Compilation
from planner.compile.sources import Source
from planner.config.schema import MaskBins
from planner.diagnostics import Diagnostic, Severity
from planner.render.document import plan_document

KEYS = {
    "plan_id",
    "model",
    "request",
    "steps",
    "computed_steps",
    "estimate",
    "columns",
    "topology",
    "placement",
    "layers",
    "attention_backend",
    "sources",
    "diagnostics",
}


def test_a_plan_as_a_document(flux: Compilation) -> None:
    document = plan_document(flux, "id", model="some/model")
    assert document.keys() == KEYS
    assert (document["plan_id"], document["model"]) == ("id", "some/model")
    assert document["computed_steps"] == {"min": 11, "max": 28}
    assert [step["index"] for step in document["steps"]] == list(range(28))
    assert document["steps"][0]["ops"] == [
        {"target": "transformer", "branch": "cond", "kind": "FULL", "reason": "WARMUP"}
    ]
    assert document["steps"][1]["ops"] == [
        {
            "target": "transformer",
            "branch": "cond",
            "kind": "ADAPTIVE",
            "reason": "DBCACHE",
            "rule": {
                "residual_diff_threshold": 0.12,
                "max_cached_steps": None,
                "max_continuous_cached_steps": 2,
                "max_accumulated_residual_diff_threshold": None,
            },
        }
    ]
    assert document["columns"] == [
        {
            "target": "transformer",
            "branch": "cond",
            "group": "transformer_blocks+single_transformer_blocks",
            "num_blocks": 57,
            "Fn_compute_blocks": 1,
            "Bn_compute_blocks": 0,
            "calibrator": {
                "cache_type": "residual",
                "forecast": "TaylorSeer",
                "order": 1,
                "encoder": False,
            },
            "reuses_cond_diff": False,
        }
    ]
    assert json.loads(json.dumps(document)) == document


def test_a_step_lists_only_what_runs_in_it(expert_pair: Compilation) -> None:
    steps = plan_document(expert_pair, "id", model="m")["steps"]
    assert [[(op["target"], op["branch"]) for op in step["ops"]] for step in steps[1:3]] == [
        [("transformer", "cond"), ("transformer", "uncond")] * 2,
        [("transformer_2", "cond"), ("transformer_2", "uncond")],
    ]


def test_groups_are_named_only_where_a_target_has_several(expert_pair: Compilation) -> None:
    steps = plan_document(expert_pair, "id", model="m")["steps"]
    assert [op["group"] for op in steps[0]["ops"]] == ["double", "double", "single", "single"]
    assert all("group" not in op for op in steps[2]["ops"])


def test_refresh_is_told_only_where_it_happens(expert_pair: Compilation) -> None:
    steps = plan_document(expert_pair, "id", model="m")["steps"]
    assert all(op["refresh"] is True for op in steps[0]["ops"])
    assert all("refresh" not in op for step in steps[1:] for op in step["ops"])


def test_the_topology_is_told_whole(expert_pair: Compilation) -> None:
    topology = plan_document(expert_pair, "id", model="m")["topology"]
    assert topology["world_size"] == 4
    assert (topology["ring_size"], topology["ulysses_size"], topology["tp_size"]) == (1, 2, 2)


def test_the_placement_is_told_whole(expert_pair: Compilation) -> None:
    document = json.loads(json.dumps(plan_document(expert_pair, "id", model="m")))
    assert document["attention_backend"] == "native"
    assert document["placement"] == {
        "quant_type": "float8_per_row",
        "exclude_layers": ["embed"],
        "components": [],
        "precision": [],
    }


def test_sources_are_told_with_plain_values(flux: Compilation) -> None:
    bins = MaskBins(compute_bins=[2, 1], cache_bins=[1])
    sourced = replace(flux, sources=(Source("cache_config.mask", bins, "file", 3),))
    (source,) = json.loads(json.dumps(plan_document(sourced, "id", model="m")))["sources"]
    assert source == {
        "key": "cache_config.mask",
        "value": {"compute_bins": [2, 1], "cache_bins": [1]},
        "origin": "file",
        "line": 3,
    }


def test_a_failed_compilation_keeps_the_keys(flux: Compilation) -> None:
    error = Diagnostic(Severity.ERROR, "bad", "cache_config.x", "wrong", "right", 3, 5)
    failed = replace(flux, program=None, estimate=None, diagnostics=(error,))
    assert plan_document(failed, None, model="m") == {
        "plan_id": None,
        "model": "m",
        "request": asdict(flux.request),
        "steps": [],
        "computed_steps": None,
        "estimate": None,
        "columns": [],
        "topology": None,
        "placement": None,
        "layers": [],
        "attention_backend": None,
        "sources": [],
        "diagnostics": [
            {
                "severity": "error",
                "code": "bad",
                "field": "cache_config.x",
                "message": "wrong",
                "hint": "right",
                "line": 3,
                "column": 5,
            }
        ],
    }


def test_the_estimate_is_plain_numbers(flux: Compilation, costly_flux: Compilation) -> None:
    estimate = json.loads(json.dumps(plan_document(costly_flux, "id", model="m")["estimate"]))
    assert estimate["min_flops"] == 700 * 10**12
    assert estimate["max_speedup"] == 2.4
    assert estimate["cache_bytes"] == 3 << 30
    # The step but for what its blocks save: 60 - (59 - 1) TFLOPs.
    assert estimate["cached_step_flops"] == 2 * 10**12
    assert estimate["columns"][0] | {"group": ""} == {
        "target": "transformer",
        "branch": "cond",
        "group": "",
        "full_flops": 59 * 10**12,
        "cached_flops": 10**12,
        "cache_bytes": 3 << 30,
    }
    assert plan_document(flux, "id", model="m")["estimate"] is None
