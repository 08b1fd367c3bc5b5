"""Trains the demo model from nothing: `python -m training --out DIR`, run from deploy/demo.

Takes about 90 minutes on two cores with bfloat16 matrix units, and a C++ compiler for
torch.compile (or TORCH_COMPILE_DISABLE=1, and more patience).
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import diffusers
import transformers

from training.captions import scene_of
from training.checkpoint import averaged_transformer
from training.export import new_pipeline, save_pipeline
from training.gallery import contact_sheet, draw_prompts
from training.scenes import evaluation_prompts
from training.score import Score, judge
from training.stages import Workplace
from training.trainer import Budget, Run, train_transformer

logger = logging.getLogger(__name__)

_STEPS = 6_000
_PROMPTS, _SHOWN = 96, 48


def main() -> None:
    """Runs every stage that is not done yet, exports the pipeline and scores it."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _silence_libraries()
    work = Workplace(options.work, options.seed)
    if work.folder.exists() and not (options.resume or options.export):
        raise SystemExit(f"{work.folder} has a training in it: add --resume, or take it away")
    work.folder.mkdir(parents=True, exist_ok=True)
    if not options.export:
        work.make_examples()
        steps = options.steps or (None if options.minutes else _STEPS)
        budget = Budget(steps, options.minutes)
        run = Run(work.examples, work.checkpoint, budget, options.processes, options.seed)
        train_transformer(run)
    _export(work, options.out)


def _export(work: Workplace, folder: Path) -> None:
    """Writes the pipeline, then scores what diffusers loads from there."""
    transformer = averaged_transformer(work.checkpoint)
    save_pipeline(new_pipeline(transformer, work.autoencoder(), work.text_encoders()), folder)
    pipeline = diffusers.FluxPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    prompts = evaluation_prompts(_PROMPTS)
    pictures = draw_prompts(pipeline, prompts)
    scenes = [scene_of(prompt) for prompt in prompts]
    score = Score.of(judge(drawn, scene) for drawn, scene in zip(pictures, scenes, strict=True))
    logger.info("score: %s", score)
    contact_sheet(pictures[:_SHOWN]).save(work.folder / "contact-sheet.png")


def _silence_libraries() -> None:
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder the pipeline is written to")
    add("--work", type=Path, default=Path("work"), help="folder for intermediate results")
    add("--resume", action="store_true", help="go on with the training in the work folder")
    add("--export", action="store_true", help="only export the work folder's last checkpoint")
    add("--processes", type=int, default=2, help="training processes that share the cores")
    add("--seed", type=int, default=1, help="seed of scenes, weights and noise")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=int, help=f"transformer steps, {_STEPS} if not said")
    budget.add_argument("--minutes", type=float, help="transformer minutes, instead of steps")
    return parser


if __name__ == "__main__":
    main()
