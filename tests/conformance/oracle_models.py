"""Builds the tiny models that the traces were recorded on, from what the file says of them.

Weights follow from the names of the parameters, so nothing but the ``meta`` of a trace file is
needed. All of it is fp32 on the CPU.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from tests.conformance.verdict import NotSupportedError

# Parameters of adaptive norms, whose gates must not vanish, and of the timestep embedding, which
# is kept small so that neighbouring steps resemble each other.
_MODULATION = (
    "mod",
    "norm1.linear",
    "norm.linear",
    "norm1_context.linear",
    "adaLN",
    "scale_shift_table",
)
_TIME = ("time", "t_embedder")


def seeded_normal(shape: tuple[int, ...], seed: int, name: str) -> Tensor:
    """Standard normal values that depend on seed and name alone."""
    generator = torch.Generator("cpu")
    generator.manual_seed((seed * 1_000_003 + zlib.crc32(name.encode())) % (2**31 - 1))
    return torch.randn(*shape, generator=generator)


@torch.no_grad()
def build_model(spec: Mapping[str, Any], *, seed: int, time_gain: float) -> nn.Module:
    """The transformer of one family in evaluation mode."""
    kind = getattr(diffusers, spec["cls"])
    model: nn.Module = kind(**spec["kwargs"]).to(torch.float32).eval()
    for name, parameter in model.named_parameters():
        noise = seeded_normal(tuple(parameter.shape), seed, name)
        parameter.copy_(_weight(name, noise, time_gain))
    return model


def _weight(name: str, noise: Tensor, time_gain: float) -> Tensor:
    modulation = any(key in name for key in _MODULATION)
    if noise.dim() <= 1:
        if name.endswith("weight"):
            return 1.0 + 0.1 * noise
        return (0.5 if modulation else 0.05) * noise
    if "guidance_embedder" in name:
        gain = 1.0
    elif any(key in name for key in _TIME):
        gain = time_gain
    else:
        gain = 0.6 if modulation else 1.0
    return gain * noise / math.sqrt(math.prod(noise.shape[1:]))


def weight_hash(model: nn.Module) -> str:
    """SHA-256 over names and fp32 bytes of all parameters in the order of their names."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_inputs(family: str, spec: Mapping[str, Any], *, seed: int) -> dict[str, Tensor]:
    """Latents and conditions of a family.

    Raises:
        NotSupportedError: the family is not known here.
    """
    shapes = _INPUTS.get(family)
    if shapes is None:
        raise NotSupportedError(f"family {family}")
    named = {
        name: seeded_normal(shape, seed, f"{family}.{name}")
        for name, shape in shapes(spec["kwargs"], spec["geometry"]).items()
    }
    return named | _positions(family, spec["geometry"])


def _positions(family: str, geometry: Mapping[str, int]) -> dict[str, Tensor]:
    """Ids of image and text tokens: (row, column) in the last two of three axes, or as FLUX.2 has
    them, in the middle two of four with the text in the last."""
    if family not in ("flux", "flux2"):
        return {}
    height, width, text = geometry["h"], geometry["w"], geometry["txt"]
    axes = 3 if family == "flux" else 4
    image = torch.zeros(height, width, axes)
    image[..., 1] = torch.arange(height)[:, None]
    image[..., 2] = torch.arange(width)[None, :]
    words = torch.zeros(text, axes)
    if family == "flux2":
        words[:, 3] = torch.arange(text)
    return {"img_ids": image.reshape(-1, axes), "txt_ids": words}


Sizes = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]


def _flux_inputs(kwargs: Sizes, geometry: Sizes) -> Shapes:
    return {**_flux2_inputs(kwargs, geometry), "pooled": (1, kwargs["pooled_projection_dim"])}


def _flux2_inputs(kwargs: Sizes, geometry: Sizes) -> Shapes:
    return {
        "latents": (1, geometry["h"] * geometry["w"], kwargs["in_channels"]),
        "prompt": (1, geometry["txt"], kwargs["joint_attention_dim"]),
    }


def _qwen_inputs(kwargs: Sizes, geometry: Sizes) -> Shapes:
    shapes = _flux2_inputs(kwargs, geometry)
    return {**shapes, "negative": shapes["prompt"]}


def _wan_inputs(kwargs: Sizes, geometry: Sizes) -> Shapes:
    text = (1, geometry["txt"], kwargs["text_dim"])
    return {"latents": _film(kwargs, geometry), "prompt": text, "negative": text}


def _z_image_inputs(kwargs: Sizes, geometry: Sizes) -> Shapes:
    return {
        "latents": (1, kwargs["in_channels"], geometry["h"], geometry["w"]),
        "prompt": (geometry["txt"], kwargs["cap_feat_dim"]),
    }


def _hunyuan_inputs(kwargs: Sizes, geometry: Sizes) -> Shapes:
    return {
        "latents": _film(kwargs, geometry),
        "prompt": (1, geometry["txt"], kwargs["text_embed_dim"]),
        "pooled": (1, kwargs["pooled_projection_dim"]),
    }


def _film(kwargs: Sizes, geometry: Sizes) -> tuple[int, ...]:
    return (1, kwargs["in_channels"], geometry["f"], geometry["h"], geometry["w"])


_INPUTS: Mapping[str, Callable[[Sizes, Sizes], Shapes]] = {
    "flux": _flux_inputs,
    "flux2": _flux2_inputs,
    "qwen": _qwen_inputs,
    "wan": _wan_inputs,
    "zimage": _z_image_inputs,
    "hunyuan": _hunyuan_inputs,
}


def _predict(
    family: str,
    model: nn.Module,
    latents: Tensor,
    time: Tensor,
    inputs: Mapping[str, Tensor],
    geometry: Sizes,
    prompt: str,
) -> Tensor:
    """One forward of the transformer, as the family's pipeline calls it; time 0 to 1000."""
    at = time.reshape(1)
    text = inputs[prompt]
    match family:
        case "flux" | "flux2":
            pooled = {"pooled_projections": inputs["pooled"]} if family == "flux" else {}
            prediction = model(
                hidden_states=latents,
                encoder_hidden_states=text,
                timestep=at / 1000,
                img_ids=inputs["img_ids"],
                txt_ids=inputs["txt_ids"],
                guidance=torch.tensor([geometry["guidance"]], device=latents.device),
                return_dict=False,
                **pooled,
            )
        case "qwen":
            prediction = model(
                hidden_states=latents,
                encoder_hidden_states=text,
                encoder_hidden_states_mask=None,
                timestep=at / 1000,
                img_shapes=[[(1, geometry["h"], geometry["w"])]],
                return_dict=False,
            )
        case "wan":
            prediction = model(
                hidden_states=latents, timestep=at, encoder_hidden_states=text, return_dict=False
            )
        case "zimage":
            frames = [latents[0].unsqueeze(1)]
            output = model(frames, (1000 - at) / 1000, [text], return_dict=False)[0]
            return -output[0].squeeze(1).unsqueeze(0)
        case "hunyuan":
            prediction = model(
                hidden_states=latents,
                timestep=at,
                encoder_hidden_states=text,
                encoder_attention_mask=latents.new_ones(1, geometry["txt"], dtype=torch.long),
                pooled_projections=inputs["pooled"],
                guidance=torch.tensor([geometry["guidance"] * 1000.0], device=latents.device),
                return_dict=False,
            )
        case _:
            raise NotSupportedError(f"family {family}")
    first: Tensor = prediction[0]
    return first


@torch.no_grad()
def denoise(
    family: str,
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    geometry: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    steps: int,
    branches: int,
) -> Iterator[Tensor]:
    """The latents after each step of the recorded scheduler.

    With two branches the conditional forward comes first, whatever a cache calls it.
    """
    stepper = getattr(diffusers, scheduler["cls"])(
        num_train_timesteps=scheduler["num_train_timesteps"], shift=scheduler["shift"]
    )
    stepper.set_timesteps(steps, device=inputs["latents"].device)
    latents = inputs["latents"].clone()
    for time in stepper.timesteps:
        prediction = _predict(family, model, latents, time, inputs, geometry, "prompt")
        if branches > 1:
            unconditional = _predict(family, model, latents, time, inputs, geometry, "negative")
            prediction = unconditional + geometry["cfg"] * (prediction - unconditional)
        latents = stepper.step(prediction, time, latents, return_dict=False)[0]
        yield latents
