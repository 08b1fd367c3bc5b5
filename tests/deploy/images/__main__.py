"""Builds both images without a Docker engine, looks into them, and draws a picture through them.

Run it with `make images`, as root; it needs buildah and debootstrap. The executor is built for
CPUs; nothing of it can tell that the CUDA variant works. ``sizes.json`` has what they take.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from tests.deploy.images.contents import LABELS, packages, problems, size
from tests.deploy.images.engine import REPOSITORY, Engine, EngineError, Image
from tests.deploy.images.picture import draw_by_images, draw_here
from tests.deploy.images.pip_settings import PipSettings, pip_settings
from tests.deploy.images.sandbox import Sandbox

WORK = REPOSITORY / "out" / "images"
SIZES = WORK / "sizes.json"
PLANNER, EXECUTOR = "localhost/ditplan/planner", "localhost/ditplan/executor"
USER = "10001:10001"
NOT_IN_A_PLANNER = {"torch", "numpy", "pillow", "diffusers", "transformers", "pip"}
PLANNER_BYTES = 200 * 10**6


def _look_into(image: Image, pip: PipSettings) -> list[str]:
    """Problems of what lies in an image, and of what its user can do in it."""
    private = (*pip.private, str(REPOSITORY))
    found = problems(image.root, int(USER.partition(":")[0]), private)
    if image.user != USER:
        found.append(f"its user is {image.user!r}, not {USER}")
    for name in LABELS:
        if image.labels.get(f"org.opencontainers.image.{name}") in (None, "", "unknown"):
            found.append(f"it has no label {name}")
    with tempfile.TemporaryDirectory() as directory:
        sandbox = Sandbox(image, Path(directory) / "tmp")
        attempt = "touch /tmp/x || echo tmp; for d in / /etc /var/tmp /opt/ditplan /run/lock; do "
        attempt += "touch $d/x 2>/dev/null && echo $d; done; id -u; id -g; id -G; "
        attempt += "grep -E 'CapEff|NoNewPrivs' /proc/self/status"
        said = sandbox.run("sh", "-c", attempt).stdout.split()
        expected = [*("10001",) * 3, "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
        if said != expected:
            found.append(f"its user could do more, or less, than it should: {said}")
    return found


def _look_into_planner(image: Image, bytes_beyond: int) -> list[str]:
    found = [f"{name} is installed" for name in NOT_IN_A_PLANNER & set(packages(image.root))]
    if bytes_beyond > PLANNER_BYTES:
        found.append(f"it has {bytes_beyond / 1e6:.0f} MB beyond its base")
    return found


def _look_into_executor(image: Image) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        sandbox = Sandbox(image, Path(directory) / "tmp")
        code = "import torch; print(torch.compile(lambda x: 2 * x.sin())(torch.zeros(8)).sum())"
        done = sandbox.run("python", "-c", code, check=False)
        return [] if done.returncode == 0 else [f"it cannot compile:\n{done.stderr}"]


def _compare(planner: Image, executor: Image, work: Path) -> list[str]:
    """Draws, and says in what the picture differs from the one of this environment."""
    drawn = draw_by_images(planner, executor, work)
    picture = Picture.open(io.BytesIO(drawn.picture))
    if (picture.format, picture.size) != ("PNG", (64, 64)):
        return [f"not a PNG of 64 x 64: {picture.format}, {picture.size}"]
    if (there := packages(executor.root)["torch"]) != (here := version("torch")):
        print(f"picture: a PNG of 64 x 64; not compared, torch is {here} here and {there} there")
        return []
    own = draw_here(work)
    if not np.array_equal(picture, Picture.open(io.BytesIO(own.picture))):
        return ["another picture than this environment draws"]
    if drawn.latents != own.latents:
        return ["other latents than this environment computes"]
    print("picture: a PNG of 64 x 64, latents and pixels as this environment makes them")
    return []


def _run(base: str | None) -> list[str]:
    engine, pip = Engine(WORK), pip_settings()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    revision, epoch = (
        subprocess.run(
            ["git", "log", "-1", f"--format={code}"],
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for code in ("%H", "%ct")
    )
    base = base or engine.make_base()
    arguments = {"BASE": base, "VERSION": project["version"], "REVISION": revision}
    seconds = {
        PLANNER: engine.build(PLANNER, "planner.Dockerfile", pip, arguments, int(epoch)),
        EXECUTOR: engine.build(
            EXECUTOR, "executor.Dockerfile", pip, {**arguments, "VARIANT": "cpu"}, int(epoch)
        ),
    }
    with engine.opened(base) as image:
        of_base = size(image.root)
    print(f"{'':28}  unpacked  beyond the base  built in")
    with (
        engine.opened(PLANNER) as planner,
        engine.opened(EXECUTOR) as executor,
        tempfile.TemporaryDirectory(dir=WORK) as work,
    ):
        found, sizes = [], {}
        for name, image in ((PLANNER, planner), (EXECUTOR, executor)):
            total = size(image.root)
            sizes[name.rpartition("/")[2]] = {"bytes": total, "beyond_base": total - of_base}
            print(
                f"{name:28}  {total / 1e6:5.0f} MB  {(total - of_base) / 1e6:12.0f} MB"
                f"  {seconds[name]:6.0f} s",
                flush=True,
            )
            wrong = _look_into(image, pip)
            if image is planner:
                wrong += _look_into_planner(image, total - of_base)
            else:
                wrong += _look_into_executor(image)
            found += [f"{name}: {problem}" for problem in wrong]
        SIZES.write_text(json.dumps(sizes, indent=1) + "\n")
        return found + _compare(planner, executor, Path(work))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="an image to build on; default: a Debian made here")
    try:
        found = _run(parser.parse_args().base)
    except (EngineError, ValueError) as error:
        print(f"make images: {error}", file=sys.stderr)
        return 2
    for problem in found:
        print(f"wrong: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
