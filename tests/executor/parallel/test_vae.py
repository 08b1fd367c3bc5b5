"""Ranks that share the tiles of a VAE end, each, with the bits of diffusers' own tiled run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan
from torch import Tensor

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.vae import shared_vae
from executor.parallel.wire import Group
from tests.executor.rank_farm import RankFarm
from tests.executor.tiny import build
from tests.executor.tiny.weights import drawn

DEMO_VAE = Path(__file__).parents[3] / "deploy/demo/model/vae"


@dataclass(frozen=True)
class Case:
    """A VAE, its tiles, and the latents and pictures that are a few of them, borders uneven.

    ``make`` is a pipeline class that has such a VAE, or builds it.
    """

    make: str | Callable[[], Any]
    latents: tuple[int, ...]
    samples: tuple[int, ...]
    tiling: Mapping[str, int] = field(default_factory=dict)
    calls_a_tile: int = 1


def _tiles(size: int, stride: int | None = None) -> dict[str, int]:
    tiling = {"tile_sample_min_height": size, "tile_sample_min_width": size}
    if stride is None:
        return tiling
    return tiling | {"tile_sample_stride_height": stride, "tile_sample_stride_width": stride}


def _wan_residual() -> AutoencoderKLWan:
    """As in Wan 2.2 of 5 B: it sees patches of 2 pixels."""
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=2,
        scale_factor_spatial=8,
    )


def _with_quant_conv(sample_size: int = 32) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        norm_num_groups=1,
        sample_size=sample_size,
    )


CASES = {
    "FLUX.1": Case("FluxPipeline", (4, 30, 26), (3, 60, 52)),
    "quant_conv": Case(_with_quant_conv, (4, 30, 26), (3, 60, 52)),
    "FLUX.2": Case("Flux2Pipeline", (4, 30, 26), (3, 60, 52)),
    "Qwen-Image": Case("QwenImagePipeline", (4, 1, 12, 20), (3, 1, 48, 80), _tiles(32, 24)),
    "Wan": Case("WanPipeline", (4, 3, 12, 20), (3, 9, 48, 80), _tiles(32, 24), 3),
    "Wan 2.2 of 5 B": Case(_wan_residual, (4, 2, 6, 8), (3, 5, 48, 64), _tiles(32, 24), 2),
    "HunyuanVideo": Case("HunyuanVideoPipeline", (4, 6, 10, 9), (3, 21, 80, 72), _tiles(64, 48)),
    "HunyuanVideo 1.5": Case(
        "HunyuanVideo15Pipeline",
        (4, 2, 5, 8),
        (3, 5, 80, 128),
        _tiles(64) | {"tile_latent_min_height": 4, "tile_latent_min_width": 4},
    ),
    "LTX-Video": Case("LTXPipeline", (8, 3, 6, 8), (3, 5, 48, 64), _tiles(32, 24)),
}


@cache
def _vae(name: str, dtype: torch.dtype = torch.float32) -> Any:
    case = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = build(case.make).vae if isinstance(case.make, str) else case.make()
        vae = drawn(vae).to(dtype)
    for key, value in case.tiling.items():
        assert hasattr(vae, key)
        setattr(vae, key, value)
    return vae


def _input(name: str, method: str, batch: int, dtype: torch.dtype) -> Tensor:
    shape = CASES[name].latents if method == "decode" else CASES[name].samples
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def _of(vae: Any, method: str, tensor: Tensor) -> Tensor:
    output = getattr(vae, method)(tensor)
    return output.sample if method == "decode" else output.latent_dist.parameters


def _digest(tensor: Tensor) -> str:
    shape = ",".join(map(str, tensor.shape)).encode()
    return hashlib.sha256(shape + tensor.detach().float().numpy().tobytes()).hexdigest()


@contextmanager
def _counted(network: Any) -> Iterator[list[int]]:
    """The numbers of elements that a network's first layer has been given."""
    sizes: list[int] = []
    hook = network.conv_in.register_forward_hook(lambda _, args, __: sizes.append(args[0].numel()))
    try:
        yield sizes
    finally:
        hook.remove()


def _state(vae: Any) -> list[dict[str, Any]]:
    return [dict(vars(module)) for module in vae.modules()]


def _same(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    return all(
        old.keys() == new.keys() and all(old[key] is new[key] for key in old)
        for old, new in zip(before, after, strict=True)
    )


def _group(world: World) -> Group:
    return world.mesh(Topology(world.size, ulysses_size=world.size)).model


RUNS = [
    ("decode", 1, torch.float32),
    ("decode", 2, torch.bfloat16),
    ("encode", 2, torch.float32),
    ("encode", 1, torch.bfloat16),
]


@dataclass(frozen=True)
class Outcome:
    digest: str
    network_calls: int
    restored: bool


def _share(world: World, name: str) -> list[Outcome]:
    outcomes = []
    for method, batch, dtype in RUNS:
        vae = _vae(name, dtype)
        before = _state(vae)
        with (
            _counted(vae.decoder if method == "decode" else vae.encoder) as calls,
            shared_vae(vae, _group(world)),
        ):
            made = _of(vae, method, _input(name, method, batch, dtype))
        outcomes.append(Outcome(_digest(made), len(calls), _same(before, _state(vae))))
    return outcomes


def _tiled(name: str, method: str, batch: int, dtype: torch.dtype) -> tuple[str, int, str]:
    """diffusers' own: digest of the tiled result, its network calls, and digest of the untiled."""
    vae = _vae(name, dtype)
    network = vae.decoder if method == "decode" else vae.encoder
    sample = _input(name, method, batch, dtype)
    with torch.no_grad():
        untiled = _of(vae, method, sample)
        vae.enable_tiling()
        with _counted(network) as calls:
            tiled = _of(vae, method, sample)
        vae.disable_tiling()
    return _digest(tiled), len(calls), _digest(untiled)


@pytest.mark.parametrize("name", CASES)
def test_every_rank_gets_what_one_process_makes_in_tiles(name: str, rank_farm: RankFarm) -> None:
    expected = [_tiled(name, *run) for run in RUNS]
    for size in (2, 3, 4):
        by_rank = rank_farm.run(size, _share, name)
        for run, (tiled, calls, untiled), outcomes in zip(
            RUNS, expected, zip(*by_rank, strict=True), strict=True
        ):
            assert {outcome.digest for outcome in outcomes} == {tiled}, (size, run)
            assert tiled != untiled
            shares = [outcome.network_calls for outcome in outcomes]
            assert sum(shares) == calls
            assert max(shares) - min(shares) <= CASES[name].calls_a_tile, (size, run, shares)
            assert all(outcome.restored for outcome in outcomes)
