"""Ranks that share the tiles of a VAE end, each, with the bits of diffusers' own tiled run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, AutoencoderTiny
from torch import Tensor

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.vae import SUPPORTED, shared_vae, tiled_vae
from executor.parallel.wire import Collective, Count, Group, Key, Ledger
from tests.executor.rank_farm import RankFailedError, RankFarm
from tests.executor.tiny import (
    autoencoder_kl,
    flux2,
    hunyuan_video,
    hunyuan_video_15,
    ltx,
    qwen_image,
    wan,
)
from tests.executor.tiny.weights import drawn

DEMO_VAE = Path(__file__).parents[3] / "deploy/demo/model/vae"


@dataclass(frozen=True)
class Case:
    """A VAE, its tiles, and the latents and pictures that are a few of them, borders uneven.

    ``calls``: how often its network is called for a tile. ``bfloat16`` where that is quick here.
    """

    make: Callable[[], Any]
    latents: tuple[int, ...]
    samples: tuple[int, ...]
    tiling: Mapping[str, int] = field(default_factory=dict)
    calls: int = 1
    batch: int = 2
    bfloat16: bool = True

    @property
    def runs(self) -> list[tuple[str, int, torch.dtype]]:
        runs = [(method, self.batch, torch.float32) for method in ("decode", "encode")]
        if self.bfloat16:
            runs += [(method, 1, torch.bfloat16) for method in ("decode", "encode")]
        return runs


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


def _with_quant_convs(sample_size: int = 32, *, attends: bool = True) -> AutoencoderKL:
    """What attends gives other strides, which have a say in the bits of what follows."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        norm_num_groups=1,
        sample_size=sample_size,
        mid_block_add_attention=attends,
    )


CASES = {
    "AutoencoderKL": Case(autoencoder_kl.autoencoder, (4, 30, 26), (3, 60, 52)),
    "AutoencoderKL, quant_conv": Case(_with_quant_convs, (4, 30, 26), (3, 60, 52)),
    "AutoencoderKLFlux2": Case(flux2.autoencoder, (4, 30, 26), (3, 60, 52)),
    "AutoencoderKLQwenImage": Case(
        partial(qwen_image.autoencoder, editing=False),
        (4, 1, 12, 20),
        (3, 1, 48, 80),
        _tiles(32, 24),
    ),
    "AutoencoderKLWan": Case(
        wan.autoencoder, (4, 2, 8, 20), (3, 5, 32, 80), _tiles(32, 24), calls=2, bfloat16=False
    ),
    "AutoencoderKLWan, residual": Case(
        _wan_residual, (4, 2, 6, 8), (3, 5, 48, 64), _tiles(32, 24), calls=2
    ),
    # As many frames as are two tiles in time.
    "AutoencoderKLHunyuanVideo": Case(
        hunyuan_video.autoencoder, (4, 5, 6, 9), (3, 17, 48, 72), _tiles(64, 48), bfloat16=False
    ),
    # diffusers' attention takes a batch of one.
    "AutoencoderKLHunyuanVideo15": Case(
        hunyuan_video_15.autoencoder,
        (4, 2, 4, 6),
        (3, 5, 64, 96),
        _tiles(64) | {"tile_latent_min_height": 4, "tile_latent_min_width": 4},
        batch=1,
        bfloat16=False,
    ),
    "AutoencoderKLLTXVideo": Case(ltx.autoencoder, (8, 3, 6, 8), (3, 5, 48, 64), _tiles(32, 24)),
}


@cache
def _vae(name: str, dtype: torch.dtype = torch.float32) -> Any:
    case = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = drawn(case.make()).to(dtype)
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


@dataclass(frozen=True)
class Outcome:
    """``sizes``: what a rank's network was given, in elements."""

    digest: str
    sizes: list[int]
    restored: bool
    counts: dict[Key, Count]


def _shared(world: World, vae: Any, method: str, sample: Tensor) -> Outcome:
    before, counts = _state(vae), dict(world.ledger.counts)
    network = vae.decoder if method == "decode" else vae.encoder
    with _counted(network) as sizes, shared_vae(vae, _group(world)):
        made = _of(vae, method, sample)
    restored = _same(before, _state(vae))
    return Outcome(_digest(made), sizes, restored, world.ledger.since(counts))


def _share(world: World, name: str) -> list[Outcome]:
    return [
        _shared(world, _vae(name, dtype), method, _input(name, method, batch, dtype))
        for method, batch, dtype in CASES[name].runs
    ]


@torch.no_grad()
def _tiled(
    name: str, method: str, batch: int = 1, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, int]:
    """What diffusers makes in tiles, and how often it calls the network."""
    vae = _vae(name, dtype)
    vae.enable_tiling()
    with _counted(vae.decoder if method == "decode" else vae.encoder) as sizes:
        tiled = _of(vae, method, _input(name, method, batch, dtype))
    vae.disable_tiling()
    return tiled, len(sizes)


@torch.no_grad()
def _untiled(name: str, method: str, batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return _of(_vae(name, dtype), method, _input(name, method, batch, dtype))


def test_there_is_a_case_for_every_supported_class() -> None:
    assert {name.split(",")[0] for name in CASES} == set(SUPPORTED)


@pytest.mark.parametrize("name", CASES)
def test_every_rank_gets_what_one_process_makes_in_tiles(name: str, rank_farm: RankFarm) -> None:
    case = CASES[name]
    expected = [_tiled(name, *run) for run in case.runs]
    for size in (2, 3, 4):
        by_rank = rank_farm.run(size, _share, name)
        for run, (tiled, calls), *outcomes in zip(case.runs, expected, *by_rank, strict=True):
            assert {outcome.digest for outcome in outcomes} == {_digest(tiled)}, (size, run)
            assert all(outcome.restored for outcome in outcomes)
            shares = [len(outcome.sizes) for outcome in outcomes]
            assert sum(shares) == calls
            assert max(shares) - min(shares) <= case.calls, (size, run, shares)
            loads = [sum(outcome.sizes) for outcome in outcomes]
            largest = case.calls * max(max(outcome.sizes, default=0) for outcome in outcomes)
            assert max(loads) - min(loads) <= largest, (size, run, loads)


def _share_small(world: World, name: str) -> Outcome:
    sample = torch.ones(1, 4, 16, 16)
    return _shared(world, _vae(name), "decode", sample)


def test_what_is_one_tile_is_computed_by_every_rank_and_not_exchanged(rank_farm: RankFarm) -> None:
    with torch.no_grad():
        whole = _of(_vae("AutoencoderKL"), "decode", torch.ones(1, 4, 16, 16))
    for outcome in rank_farm.run(2, _share_small, "AutoencoderKL"):
        assert outcome.digest == _digest(whole)
        assert len(outcome.sizes) == 1
        assert not outcome.counts


def _share_exactly(world: World, shape: tuple[int, ...]) -> Outcome:
    return _shared(world, _vae("AutoencoderKL"), "decode", torch.ones(shape))


def test_layouts_and_padded_tiles_are_exchanged(rank_farm: RankFarm) -> None:
    # Tiles of 16 every 12: 16 and 12 high, 16 and 8 wide. By size: 16 x 16 and 12 x 16, then
    # 16 x 8 and 12 x 8; three channels of pixels that are half as wide.
    first, second = 3 * 32 * 32 * 4, 3 * 32 * 16 * 4
    layouts = 2 * 2 * 4 * 8
    for outcome in rank_farm.run(2, _share_exactly, (1, 4, 24, 20)):
        assert outcome.counts == {
            (Collective.ALL_GATHER, "model"): Count(3, first + second + layouts)
        }
    # Three ranks: the fourth tile is alone in its turn.
    last = 3 * 24 * 16 * 4
    for outcome in rank_farm.run(3, _share_exactly, (1, 4, 24, 20)):
        assert outcome.counts == {
            (Collective.ALL_GATHER, "model"): Count(3, 2 * (first + last + layouts))
        }


def _share_with_other_weights(world: World, name: str) -> Outcome:
    vae = deepcopy(_vae(name))
    if world.rank == 1:
        with torch.no_grad():
            vae.decoder.conv_out.bias += 1e-3
    return _shared(world, vae, "decode", _input(name, "decode", 1, torch.float32))


def test_the_tiles_of_the_other_ranks_are_theirs(rank_farm: RankFarm) -> None:
    name = "AutoencoderKL"
    tiled, _ = _tiled(name, "decode")
    first, second = rank_farm.run(2, _share_with_other_weights, name)
    assert first.digest == second.digest != _digest(tiled)


def _fail_on_one(world: World, name: str) -> None:
    vae = deepcopy(_vae(name))
    group = _group(world)

    def refuse(*_: Any) -> None:
        raise MemoryError("no room for a tile")

    if world.rank == 1:
        vae.decoder.conv_out.register_forward_hook(refuse)
    before = _state(vae)
    try:
        with shared_vae(vae, group):
            _of(vae, "decode", _input(name, "decode", 1, torch.float32))
    except Exception as error:
        raise RuntimeError(f"{error}; restored: {_same(before, _state(vae))}") from None


def test_a_rank_whose_tile_fails_raises_and_its_vae_is_as_before(rank_farm: RankFarm) -> None:
    with pytest.raises(RankFailedError) as failed:
        rank_farm.run(2, _fail_on_one, "AutoencoderKLWan")
    message = str(failed.value)
    assert "no room for a tile; restored: True" in message
    assert message.count("restored: True") == 2, message


def test_a_vae_whose_tiles_cannot_be_shared_is_refused() -> None:
    alone = Group("model", [0], 0, None, Ledger())
    with pytest.raises(ValueError, match=r"AutoencoderTiny, only of AutoencoderKL, Auto.*Wan$"):
        shared_vae(AutoencoderTiny(), alone).__enter__()
    vae = ltx.autoencoder()
    vae.register_to_config(decoder_inject_noise=(True, False, False))
    with pytest.raises(ValueError, match="decoder_inject_noise"):
        shared_vae(vae, alone).__enter__()


@pytest.mark.parametrize(
    ("sample_size", "ranks", "tile"),
    [(512, 1, 512), (512, 2, 256), (1024, 2, 256), (1024, 4, 256), (256, 4, 256), (520, 4, 520)],
)
def test_picture_tiles_are_halved_until_there_is_one_a_rank(
    sample_size: int, ranks: int, tile: int
) -> None:
    vae = _with_quant_convs(sample_size, attends=False)
    latents = torch.ones(1, 4, 160, 8)
    with torch.no_grad(), tiled_vae(vae, ranks), _counted(vae.decoder) as sizes:
        made = _of(vae, "decode", latents)
    assert vae.tile_sample_min_size == sample_size
    vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // 2
    vae.enable_tiling()
    with torch.no_grad(), _counted(vae.decoder) as expected:
        assert torch.equal(made, _of(vae, "decode", latents))
    assert sizes == expected


def test_tiles_are_not_the_whole_picture() -> None:
    """Prints how far from it they are, for a trained VAE: pytest -s."""
    vae = AutoencoderKL.from_pretrained(DEMO_VAE).eval()
    # A disc and a bar on a ground, four times as large as what the VAE has seen.
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    disc = (rows - 50) ** 2 + (columns - 70) ** 2 < 30**2
    bar = (rows > 90) & (rows < 110)
    ground = torch.tensor([0.2, -0.4, 0.6])[:, None, None].expand(3, 128, 128)
    picture = torch.where(disc, torch.tensor([0.9, 0.8, -0.7])[:, None, None], ground)
    picture = torch.where(bar, torch.tensor([-0.8, -0.8, -0.8])[:, None, None], picture)[None]
    with torch.no_grad():
        latents = vae.encode(picture).latent_dist.mode()
        whole = vae.decode(latents).sample
        psnr = {}
        for tile in (64, 32):
            vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // 4
            with tiled_vae(vae, 1):
                tiled = vae.decode(latents).sample
            psnr[tile] = 10 * math.log10(4 / (tiled - whole).square().mean().item())
    print(", ".join(f"tiles of {tile} pixels: {db:.1f} dB to untiled" for tile, db in psnr.items()))
    assert 20 < psnr[32] < psnr[64] < 80
