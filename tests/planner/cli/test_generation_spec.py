"""What ``ditplan generate`` asks for when a record that a person edited is replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.cli.generation_spec import generation_spec
from planner.cli.inputs import InputError

OP = {"target": "transformer", "branch": "cond", "group": "blocks", "kind": "FULL"}
RECORD: dict[str, Any] = {
    "spec": {"model": "somewhere", "prompt": "a red circle", "seed": 2**64 - 1},
    "program": {
        "columns": [{"target": "transformer", "branch": "BRANCH_COND", "block_lists": ["blocks"]}]
    },
    "steps": [{"ops": [OP]}, {"ops": [{**OP, "refresh": True}]}],
}


def replay(path: Path, record: Any) -> Any:
    path.write_text(json.dumps(record))
    return generation_spec(config=None, plan=None, replay=path, model=None, prompt=None)


def test_a_record_is_asked_for_as_it_is(tmp_path: Path) -> None:
    spec = replay(tmp_path / "record.json", RECORD)
    assert (spec.model, spec.prompt, spec.seed) == ("somewhere", "a red circle", 2**64 - 1)
    assert [list(step.ops) for step in spec.program.steps] == [[1], [2]]
    assert [op.refresh for op in spec.program.ops] == [False, True]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec": None}, "spec: is no mapping"),
        ({"spec": {"prompt": 1}}, "spec.prompt: 1 is not allowed"),
        ({"spec": {"seed": "x"}}, "spec.seed: 'x' is not allowed"),
        ({"spec": {"seed": -1}}, "spec.seed: -1 is not allowed"),
        ({"spec": {"height": float("nan")}}, "spec.height: nan is not allowed"),
        ({"spec": {"prompt": "\ud800"}}, "spec.prompt: '\\ud800' is not allowed"),
        ({"spec": {"size": 1}}, "spec.size: is unknown"),
        ({"spec": {"config": "cache_config: {}"}}, "spec.config: has no place in a record"),
        ({"spec": {"program": {}}}, "spec.program: has no place in a record"),
        ({"steps": None}, "it has no list of steps"),
        ({"steps": [None]}, "steps[0].ops: is no list"),
        ({"steps": [{"ops": [{**OP, "kind": "ADAPTIVE"}]}]}, "steps[0].ops[0].kind"),
        ({"steps": [{"ops": [{**OP, "refresh": "no"}]}]}, "steps[0].ops[0].refresh: 'no'"),
        ({"steps": [{"ops": [{**OP, "target": []}]}]}, "the program has no column"),
        ({"program": 1}, "program:"),
    ],
)
def test_an_edited_record_is_refused_with_the_place(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as refused:
        replay(tmp_path / "record.json", RECORD | changes)
    assert words in refused.value.message
