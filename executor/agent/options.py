"""The options of `python -m executor`, by what they are about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from ditplan.common.connection_options import connection_options

from executor.agent.option_types import SIZES, PlanFile, boolean

LOG_LEVELS = ("debug", "info", "warning", "error")

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_MODEL: Sequence[_Decorator] = (
    click.option(
        "--planner", required=True, metavar="HOST:PORT", help="The planner to ask for work."
    ),
    click.option(
        "--model", required=True, help="A diffusers checkpoint directory, or a name on the hub."
    ),
    click.option(
        "--revision", metavar="COMMIT_OR_BRANCH", help="Which state of a model on the hub to load."
    ),
    click.option("--variant", metavar="NAME", help="Weights of that variant, e.g. fp16."),
    click.option(
        "--lora",
        metavar="FILE_OR_NAME",
        help="An adapter to fuse into the weights: a file, a directory or a name on the hub.",
    ),
    click.option("--lora-scale", type=float, help="How much the adapter counts.  [default: 1]"),
    click.option("--served-name", help="The model's name to clients.  [default: its directory]"),
    click.option("--name", help="Unique among executors.  [default: host name and process id]"),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto"),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        help="auto: bfloat16 on CUDA, float32 on the CPU.",
    ),
)
"""Whom to ask for work, and which model to serve as what."""

_SERVING: Sequence[_Decorator] = (
    click.option(
        "--listen",
        default="127.0.0.1:0",
        show_default=True,
        metavar="HOST:PORT",
        help="For health checks; on this machine, or with --insecure, for questions about it, too.",
    ),
    click.option(
        "--drain-seconds",
        type=click.FloatRange(min=0, max=86_400),
        default=60,
        show_default=True,
        help="How long the current run may go on after SIGTERM.",
    ),
    click.option(
        "--group-size",
        type=click.IntRange(min=1),
        help="Splits torchrun's ranks into executors of so many.  [default: one executor]",
    ),
)
"""Where it can be asked itself, how it ends, and what of a launch it is."""

_HOLDING: Sequence[_Decorator] = (
    click.option(
        "--plan",
        type=PlanFile(),
        help="Hold what this plan of `ditplan compile` needs: quantization, shared tensors.",
    ),
    click.option(
        "--tp-size",
        type=click.IntRange(min=1),
        help="How many ranks share the tensors of a transformer.  [default: the plan's, or 1]",
    ),
    click.option(
        "--extra-parallel-modules",
        metavar="NAME,...",
        help="The text encoders that the ranks share.  [default: the plan's, or none]",
    ),
    click.option(
        "--allow-reload",
        is_flag=True,
        help="Load the model anew for a plan that needs it quantized or split otherwise.",
    ),
    boolean("--compile", "--enable-torch-compile", help="Compile the transformers' blocks."),
    boolean("--dit-cpu-offload", help="Keep transformers in the host's memory until they run."),
    boolean("--dit-layerwise-offload", help="Keep their blocks there, each until it runs."),
    boolean("--text-encoder-cpu-offload", help="Keep text encoders there until they run."),
    boolean("--vae-cpu-offload", help="Keep the VAE there until it runs."),
    boolean("--warmup", help="Run two steps of --plan in every size before work is taken."),
    click.option(
        "--warmup-resolutions",
        type=SIZES,
        metavar="WIDTHxHEIGHT[xFRAMES],...",
        help="The sizes of --warmup.",
    ),
)
"""How it holds the model: what the weights become when they are loaded, and where they stay."""

_WATCHING: Sequence[_Decorator] = (
    click.option(
        "--metrics-listen",
        default="",
        metavar="HOST:PORT",
        help="Where Prometheus finds metrics, over plain HTTP.  [default: nowhere]",
    ),
    click.option("--log-level", type=click.Choice(LOG_LEVELS), default="info", show_default=True),
    click.option("--log-prompts", is_flag=True, help="Log the prompts of runs."),
    click.option("--verbose", is_flag=True, help="Log every layer that is quantized or is not."),
    click.option(
        "--rank-timeout",
        type=click.FloatRange(min=1, max=3600),
        default=60,
        show_default=True,
        help="Seconds after which a rank that does not answer counts as stopped.",
    ),
)
"""What is seen of it, and when a rank counts as lost."""


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of them, in the order in which --help lists them."""
    for option in reversed((*_MODEL, *_SERVING, *_HOLDING, connection_options, *_WATCHING)):
        command = option(command)
    return command
