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
    @click.option("--num-gpus", type=int, help="GPUs that share the run.  [default: 1]")
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
        num_gpus: int | None,
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
            steps, num_gpus, height, width, guidance, frames, negative_prompt, device, dtype
        )
        return command(*arguments, request=request, **options)

    return with_request


_VALUES = {
    "device": "cpu or cuda.",
    "dtype": "bfloat16, float16 or float32.",
    "revision": "Of a model on the hub.",
    "variant": "Of the files of weights, e.g. bf16.",
    "lora": "Fuse this adapter.",
    "lora-scale": "With this factor.",
}
_SWITCHES = {
    "warmup": "Run two steps first, so that the run is not the one that waits for kernels.",
    "compile": "Compile the transformers' blocks.",
    "dit-cpu-offload": "Keep transformers in the host's memory until they run.",
    "dit-layerwise-offload": "Keep their blocks there, each until it runs.",
    "text-encoder-cpu-offload": "Keep text encoders there until they run.",
    "vae-cpu-offload": "Keep the VAE there until it runs.",
}


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds options of an executor that is brought up, passed on as its arguments, ``placement``.

    Switches are on by their name alone and take true and false, as SGLang's do.
    """

    @wraps(command)
    def with_executor(*arguments: Any, **options: Any) -> Any:
        given = {name: options.pop(name.replace("-", "_")) for name in (*_VALUES, *_SWITCHES)}
        placement: list[str] = []
        for name, value in given.items():
            if value:
                placement += [f"--{name}"] if name in _SWITCHES else [f"--{name}", value]
        return command(*arguments, placement=tuple(placement), **options)

    for name, help in reversed(_SWITCHES.items()):
        also = ["--enable-torch-compile"] if name == "compile" else []
        with_executor = click.option(
            name.replace("-", "_"),
            f"--{name}",
            *also,
            type=bool,
            is_flag=False,
            flag_value="true",
            default=False,
            metavar="[true|false]",
            help=help,
        )(with_executor)
    for name, help in reversed(_VALUES.items()):
        with_executor = click.option(f"--{name}", help=f"{help} Of a local run.")(with_executor)
    return with_executor


model_option = click.option(
    "--model", required=True, metavar="NAME_OR_DIR", help="Published name or checkpoint."
)

planner_option = click.option(
    "--planner",
    default="127.0.0.1:7330",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the planner listens.",
)
