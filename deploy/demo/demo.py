"""The main job on one machine: planner and executor as processes, pictures from prompts.

Every prompt is drawn from the same seed uncached, with DBCache and TaylorSeer, with the SCM preset
``fast`` and, as a control, uncached with fewer steps. Ends with a contact sheet and a table.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from contact_sheet import contact_sheet
from ditplan.v1 import generation_pb2
from PIL import Image
from rich.console import Console
from rich.table import Table

from planner.cli.client import Client, connect
from planner.cli.local import local_service
from planner.cli.outcome import succeeded
from planner.cli.plan_view import show_plan
from planner.cli.progress import RunProgress, step_kind
from planner.compile.plan import OpKind

HERE = Path(__file__).resolve().parent
PROMPTS = (
    "a big red circle in the centre on a white background",
    "a yellow star at the top right on a blue background",
    "a small green heart in the centre on an orange background",
    "a purple cross at the bottom left on a yellow background",
    "a big blue triangle in the centre on a red background",
    "a black square at the top left on a green background",
)
STEPS = 28


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to draw the prompts: a row of the sheet and of the table."""

    title: str
    config: Path | None = None
    steps: int = STEPS


VARIANTS = (
    Variant("uncached"),
    Variant("DBCache + TaylorSeer", HERE / "cache.yaml"),
    Variant("SCM fast", HERE / "scm-fast.yaml"),
    # What a cache has to beat: the same work spent on fewer steps.
    Variant("uncached, 12 steps", steps=12),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """One generation; ``seconds`` is its denoising time."""

    image: Image.Image
    seconds: float
    steps: int
    computed: int


@click.command()
@click.option("--model", default=str(HERE / "model"), help="Checkpoint to draw with.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/demo"))
def demo(model: str, out: Path) -> None:
    """Draw the demo's prompts in every variant and compare."""
    out.mkdir(parents=True, exist_ok=True)
    console = Console()
    rows: dict[str, list[Picture]] = {variant.title: [] for variant in VARIANTS}

    console.print("starting a planner and an executor ...")
    with local_service(model) as service, connect(service.planner) as client:
        # The first run of a process pays for things that no later one does.
        draw(client, model, Variant("warm-up"), PROMPTS[0], seed=0)
        for seed, prompt in enumerate(PROMPTS):
            console.print(f"\n[bold]{prompt}[/bold], seed {seed}")
            for variant in VARIANTS:
                picture = draw(client, model, variant, prompt, seed, show=seed == 0)
                rows[variant.title].append(picture)
    sheet = out / "contact-sheet.png"
    images = {title: [picture.image for picture in row] for title, row in rows.items()}
    contact_sheet(images).save(sheet)
    console.print()
    console.print(table(rows))
    console.print(f"contact sheet: {sheet}")


def draw(
    client: Client, model: str, variant: Variant, prompt: str, seed: int, *, show: bool = False
) -> Picture:
    """One picture; ``show`` prints its plan before it runs, if it has a config."""
    spec = generation_pb2.GenerationSpec(
        model=model,
        prompt=prompt,
        num_inference_steps=variant.steps,
        seed=seed,
        config=variant.config.read_text() if variant.config else "",
    )

    def events() -> Iterator[generation_pb2.GenerationEvent]:
        for event in client.generate(spec):
            if event.HasField("planned") and show and variant.config:
                show_plan(event.planned, model=model, source=spec.config, name=variant.config.name)
            yield event

    with RunProgress() as progress:
        finished = succeeded(progress.follow(variant.title.ljust(20), events()))
    data = client.read(finished.name, finished.artifacts[0])
    kinds = [step_kind(step) for step in finished.record.steps]
    return Picture(
        image=Image.open(io.BytesIO(data)).convert("RGB"),
        seconds=finished.record.denoise_seconds,
        steps=len(kinds),
        computed=kinds.count(OpKind.FULL),
    )


def table(rows: dict[str, list[Picture]]) -> Table:
    """Steps computed, speed-up and PSNR of every row against the first, as medians."""
    result = Table(title=f"{len(PROMPTS)} prompts, medians")
    for heading in ("", "steps computed", "speed-up", "PSNR to uncached"):
        result.add_column(heading, justify="left" if not heading else "right")
    reference = next(iter(rows.values()))
    for title, row in rows.items():
        pairs = list(zip(reference, row, strict=True))
        speed_up = statistics.median(a.seconds / b.seconds for a, b in pairs)
        psnr = statistics.median(psnr_db(a.image, b.image) for a, b in pairs)
        computed = statistics.median(picture.computed for picture in row)
        result.add_row(
            title,
            f"{computed:g} of {row[0].steps}",
            f"{speed_up:.2f}x",
            "identical" if psnr == float("inf") else f"{psnr:.1f} dB",
        )
    return result


def psnr_db(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio of two 8-bit pictures of the same size, in dB."""
    error = np.mean((np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


if __name__ == "__main__":
    demo()
