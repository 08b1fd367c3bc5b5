"""Names on the hub: what is fetched, from which state, and what is said when it cannot be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from executor.checkpoints.hub import resolve, resolve_adapter
from executor.errors import PlacementError
from executor.placement.load import load
from tests.executor.checkpoints.small_hub import commit_of, small_hub

MODEL = "tiny/flux"
CONFIG = "scheduler/scheduler_config.json"
STEM = "diffusion_pytorch_model"
# In a process of its own: the address of the hub is read when its library is imported.
SCRIPT = """
import json, sys
from executor.errors import PlacementError
from executor.checkpoints.hub import resolve, resolve_adapter
from executor.placement.quiet import silence_libraries
silence_libraries()
for name, function, arguments in json.load(sys.stdin):
    try:
        answer = str(globals()[function](**arguments))
    except PlacementError as error:
        answer = f"PlacementError: {error}"
    print(json.dumps([name, answer]), flush=True)
"""
REPOSITORY = Path(__file__).parents[3]

Asks = list[tuple[str, str, dict[str, Any]]]
Answers = tuple[dict[str, str], list[str], Path]


def _ask(asks: Asks, **environment: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(asks),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | environment,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def answers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What `SCRIPT` answered, what the hub was asked for, and where it is kept."""
    home = tmp_path_factory.mktemp("hub")
    main, other = home / "main", home / "other"
    shutil.copytree(checkpoint, main)
    (main / "README.md").write_text("a model")
    torch.save({}, main / f"vae/{STEM}.bin")
    half = {k: v.half() for k, v in load_file(main / f"transformer/{STEM}.safetensors").items()}
    save_file(half, main / f"transformer/{STEM}.fp16.safetensors", {"format": "pt"})
    shutil.copytree(checkpoint, other)
    config = json.loads((other / CONFIG).read_text())
    (other / CONFIG).write_text(json.dumps(config | {"shift": 5.0}))
    style = home / "style"
    style.mkdir()
    for name in ("one", "two"):
        save_file({"a": torch.zeros(1)}, style / f"{name}.safetensors")
    repositories = {
        MODEL: {"main": main, "other": other},
        "tiny/variant": {"main": main},
        "tiny/style": {"main": style},
        "tiny/single": {"main": checkpoint / "vae"},
    }
    asks: Asks = [
        ("main", "resolve", {"model": MODEL}),
        ("branch", "resolve", {"model": MODEL, "revision": "other"}),
        ("commit", "resolve", {"model": MODEL, "revision": commit_of("other")}),
        ("variant", "resolve", {"model": "tiny/variant", "variant": "fp16"}),
        ("no revision", "resolve", {"model": MODEL, "revision": "nowhere"}),
        ("no variant", "resolve", {"model": MODEL, "variant": "fp8"}),
        ("no model", "resolve", {"model": "tiny/nothing"}),
        ("no model for a variant", "resolve", {"model": "tiny/nothing", "variant": "fp16"}),
        ("no name", "resolve", {"model": "tiny/a b", "variant": "fp16"}),
        ("gated", "resolve", {"model": "tiny/gated"}),
        ("of a directory", "resolve", {"model": str(checkpoint), "revision": "main"}),
        ("one adapter", "resolve_adapter", {"lora": "tiny/single"}),
        ("adapters", "resolve_adapter", {"lora": "tiny/style"}),
        ("named adapter", "resolve_adapter", {"lora": "tiny/style/two.safetensors"}),
        ("no adapter", "resolve_adapter", {"lora": "tiny/style/three.safetensors"}),
    ]
    environment = {"HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "", "HF_TOKEN": ""}
    with small_hub(repositories, gated=("tiny/gated",)) as (address, asked):
        found = _ask(asks, HF_ENDPOINT=address, **environment)
    return found, asked, home / "cache"


@pytest.fixture
def offline(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(answers[2] / "hub"))


def _files(snapshot: str) -> set[str]:
    root = Path(snapshot)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_only_what_loading_reads_is_fetched(answers: Answers, checkpoint: Path) -> None:
    found, asked, _ = answers
    held = load(found["main"])
    expected = _files(str(checkpoint))
    assert _files(found["main"]) == expected
    assert not any("README" in path or path.endswith(".bin") for path in asked)
    assert held.served_name == found["main"]


def test_a_branch_and_its_commit_are_the_same_state(answers: Answers) -> None:
    found = answers[0]
    assert found["branch"] == found["commit"] != found["main"]
    configs = (load(found[name]).checkpoint.config(CONFIG)["shift"] for name in ("main", "branch"))
    assert list(configs) == [3.0, 5.0]


def test_of_a_variant_the_plain_weights_are_not_fetched(answers: Answers) -> None:
    found = answers[0]
    transformer = {name for name in _files(found["variant"]) if name.startswith("transformer/")}
    assert transformer == {"transformer/config.json", f"transformer/{STEM}.fp16.safetensors"}
    load(found["variant"], variant="fp16")
    with pytest.raises(PlacementError, match="--variant"):
        load(found["variant"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no revision", "tiny/flux: .* at revision nowhere: there is no such revision"),
        ("no variant", "--variant fp8: tiny/flux has no such .* only the plain ones and fp16"),
        ("no model", "tiny/nothing: .*: there is no such repository, or it needs a token"),
        ("no model for a variant", "tiny/nothing: .*: there is no such repository"),
        ("no name", "tiny/a b: .*Repo id must"),
        ("gated", "tiny/gated: .*: its licence is to be accepted on the hub, and HF_TOKEN set"),
        ("of a directory", "--revision main: .* is a directory"),
        ("adapters", "--lora tiny/style: several files, name one: one.safetensors, two"),
        ("no adapter", "--lora tiny/style/three.safetensors: .*: there is no such file"),
    ],
)
def test_what_the_hub_does_not_give_is_said_with_the_reason(
    answers: Answers, name: str, words: str
) -> None:
    assert re.fullmatch(f"PlacementError: {words}.*", answers[0][name])


def test_an_adapter_is_one_file(answers: Answers) -> None:
    found, asked, _ = answers
    assert found["one adapter"].endswith(f"/{STEM}.safetensors")
    assert found["named adapter"].endswith("/two.safetensors")
    assert not any(path.endswith("one.safetensors") for path in asked)


@pytest.mark.usefixtures("offline")
def test_what_was_fetched_is_there_offline(answers: Answers) -> None:
    found = answers[0]
    assert str(resolve(MODEL, revision="other")) == found["branch"]
    assert str(resolve("tiny/variant", variant="fp16")) == found["variant"]
    assert str(resolve_adapter("tiny/single")) == found["one adapter"]
    assert str(resolve_adapter("tiny/style/two.safetensors")) == found["named adapter"]
    with pytest.raises(PlacementError, match=r"variant has no such .* plain ones and fp16"):
        resolve("tiny/variant", variant="fp8")
    for name in (resolve, resolve_adapter):
        with pytest.raises(PlacementError, match=r"tiny/nothing: .* offline: it is not in the"):
            name("tiny/nothing")
    with pytest.raises(PlacementError, match=r"tiny/nothing: .* offline: it is not in the"):
        resolve("tiny/nothing", variant="fp16")
