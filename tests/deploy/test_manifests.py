"""Manifests name what is in the code: every rendering under every check, and each check at work."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.deploy import observing_checks, pod_checks, wiring_checks
from tests.deploy.commands import option_names
from tests.deploy.damages import DAMAGES
from tests.deploy.rendering import KUBERNETES, RENDERINGS, ROOT, kubectl, render

pytestmark = pytest.mark.skipif(kubectl() is None, reason="kubectl is not on the path")

CHECKS = {
    name.removeprefix("check_"): check
    for module in (pod_checks, wiring_checks, observing_checks)
    for name, check in vars(module).items()
    if name.startswith("check_")
}


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("check", CHECKS)
def test_a_rendering_has_no_faults(check: str, rendering: str) -> None:
    assert list(CHECKS[check](render(RENDERINGS[rendering]))) == []


def test_every_component_is_rendered() -> None:
    listed = {
        (path / component).resolve()
        for path in RENDERINGS.values()
        for component in yaml.safe_load((path / "kustomization.yaml").read_text())["components"]
    }
    assert listed == set((KUBERNETES / "components").iterdir())


def test_images_are_set_in_one_place() -> None:
    setting = [
        path
        for path in (*KUBERNETES.rglob("*.yaml"), *ROOT.glob("deploy/alerts/*.yaml"))
        if re.search(r"^images:|image: [^#\n]*:[^/\n]*$", path.read_text(), re.MULTILINE)
    ]
    assert setting == [KUBERNETES / "components/images/kustomization.yaml"]


def test_the_readme_knows_every_overlay_component_and_secret() -> None:
    text = (ROOT / "deploy/README.md").read_text()
    names = [path.name for of in ("overlays", "components") for path in (KUBERNETES / of).iterdir()]
    assert [name for name in (*names, *pod_checks.SECRETS) if f"`{name}`" not in text] == []


def test_options_that_the_readme_and_comments_name_exist() -> None:
    texts = [path.read_text() for path in KUBERNETES.rglob("*.yaml")]
    texts.append((ROOT / "deploy/README.md").read_text())
    named = {
        name
        for text in texts
        for line in text.splitlines()
        # Not the words of torchrun, kubectl and the like.
        for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)
    }
    others = {
        *("--standalone", "--nproc-per-node", "--max-restarts", "--shutdown-timeout"),
        *("--rdzv-backend", "--rdzv-endpoint", "--rdzv-conf", "--nnodes", "--node-rank"),
        *("--from-file", "--namespace", "--kustomize", "--force", "--role", "--out", "--prompt"),
    }
    assert named - option_names() - others == set()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(damage: str) -> None:
    check, rendering, do = DAMAGES[damage]
    objects = render(RENDERINGS[rendering])
    do(objects)
    assert list(CHECKS[check](objects))


def test_every_check_finds_something() -> None:
    assert {check for check, _, _ in DAMAGES.values()} == set(CHECKS)
