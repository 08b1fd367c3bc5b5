"""Builds the tiny models that the traces were recorded on, from what the file says of them.

Weights follow from the names of the parameters, so nothing but the ``meta`` of a trace file is
needed. All of it is fp32 on the CPU.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Mapping
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
        digest.update(parameter.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_inputs(family: str, spec: Mapping[str, Any], *, seed: int) -> dict[str, Tensor]:
    """Latents and conditions of a family.

    Raises:
        NotSupportedError: the family is not run yet.
    """
    if family not in _FORWARDS:
        raise NotSupportedError(f"family {family}")
    kwargs, geometry = spec["kwargs"], spec["geometry"]
    height, width, text = geometry["h"], geometry["w"], geometry["txt"]

    def values(name: str, *shape: int) -> Tensor:
        return seeded_normal(shape, seed, f"{family}.{name}")

    image_ids = torch.zeros(height, width, 3)
    image_ids[..., 1] = torch.arange(height)[:, None]
    image_ids[..., 2] = torch.arange(width)[None, :]
    return {
        "latents": values("latents", 1, height * width, kwargs["in_channels"]),
        "prompt": values("prompt", 1, text, kwargs["joint_attention_dim"]),
        "pooled": values("pooled", 1, kwargs["pooled_projection_dim"]),
        "img_ids": image_ids.reshape(-1, 3),
        "txt_ids": torch.zeros(text, 3),
    }


def _flux(
    model: nn.Module, latents: Tensor, time: Tensor, inputs: Mapping[str, Tensor], guidance: float
) -> Tensor:
    prediction: Tensor = model(
        hidden_states=latents,
        encoder_hidden_states=inputs["prompt"],
        pooled_projections=inputs["pooled"],
        timestep=time.reshape(1) / 1000,
        img_ids=inputs["img_ids"],
        txt_ids=inputs["txt_ids"],
        guidance=torch.tensor([guidance]),
        return_dict=False,
    )[0]
    return prediction


_FORWARDS: Mapping[str, Callable[..., Tensor]] = {"flux": _flux}


@torch.no_grad()
def denoise(
    family: str,
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    geometry: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    steps: int,
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """The latents after all steps of the recorded scheduler."""
    stepper = getattr(diffusers, scheduler["cls"])(
        num_train_timesteps=scheduler["num_train_timesteps"], shift=scheduler["shift"]
    )
    stepper.set_timesteps(steps)
    latents = inputs["latents"].clone()
    for time in stepper.timesteps:
        prediction = _FORWARDS[family](model, latents, time, inputs, geometry["guidance"])
        latents = stepper.step(prediction, time, latents, return_dict=False)[0]
        on_step()
    return latents
