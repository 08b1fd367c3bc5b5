"""Options that several commands share: what a config is compiled for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from planner.compile.request import Request

FORMATS = click.Choice(["text", "json"])


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that make up a request, passed on as one ``request``."""

    @click.option("--steps", type=int, help="Denoising steps.  [default: the config's or model's]")
    @click.option("--gpus", type=int, help="GPUs that share the run.  [default: 1]")
    @click.option("--height", type=int, help="Pixels.  [default: the model's]")
    @click.option("--width", type=int, help="Pixels.  [default: the model's]")
    @click.option("--guidance", type=float, help="Guidance scale.  [default: the model's]")
    @click.option("--frames", type=int, help="Of a video.  [default: the model's]")
    @click.option(
        "--negative-prompt", is_flag=True, help="The run has one; some models need it for guidance."
    )
    @click.option("--device", help="Check for this: cpu, or a compute capability as sm90.")
    @click.option("--dtype", help="Of the transformers, for the bytes.  [default: bfloat16]")
    @wraps(command)
    def with_request(
        *arguments: Any,
        steps: int | None,
        gpus: int | None,
        height: int | None,
        width: int | None,
        guidance: float | None,
        frames: int | None,
        negative_prompt: bool,
        device: str | None,
        dtype: str | None,
        **options: Any,
    ) -> Any:
        request = Request(
            steps, gpus, height, width, guidance, frames, negative_prompt, device, dtype
        )
        return command(*arguments, request=request, **options)

    return with_request


_PLACEMENT = {
    "warmup": "Run two steps first, so that the run is not the one that waits for kernels.",
    "compile": "Compile the transformers' blocks.",
    "dit_cpu_offload": "Keep transformers in the host's memory until they run.",
    "dit_layerwise_offload": "Keep their blocks there, each until it runs.",
    "text_encoder_cpu_offload": "Keep text encoders there until they run.",
    "vae_cpu_offload": "Keep the VAE there until it runs.",
}


def placement_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds options of an executor that is brought up, passed on as one tuple of ``placement``.

    Each is on by its name alone and takes true and false, as SGLang's do.
    """

    @wraps(command)
    def with_placement(*arguments: Any, **options: Any) -> Any:
        chosen = tuple(name for name in _PLACEMENT if options.pop(name))
        return command(*arguments, placement=chosen, **options)

    for name, help in reversed(_PLACEMENT.items()):
        names = [f"--{name.replace('_', '-')}"]
        names += ["--enable-torch-compile"] if name == "compile" else []
        with_placement = click.option(
            name,
            *names,
            type=bool,
            is_flag=False,
            flag_value="true",
            default=False,
            metavar="[true|false]",
            help=help,
        )(with_placement)
    return with_placement


model_option = click.option(
    "--model", required=True, metavar="NAME_OR_DIR", help="Published name or checkpoint."
)
