"""A VAE whose tiles the ranks of a run share.

The method of diffusers runs twice. The first time its network is stood in for by a recorder, which
notes what every tile asks for and computes nothing. The ranks deal the tiles out, compute and
exchange them. The second time the network is stood in for by the results: cutting and blending are
diffusers' own, and every rank ends with the bits that one process makes with the same tiles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from executor.parallel.wire import Group

VAE = "vae"
"""What pipelines and plans call it."""

SUPPORTED = (
    "AutoencoderKL",
    "AutoencoderKLFlux2",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLHunyuanVideo15",
    "AutoencoderKLLTXVideo",
    "AutoencoderKLQwenImage",
    "AutoencoderKLWan",
)
"""The VAE classes whose tiles ranks can share."""

_SMALLEST = 256
"""Pixels: the tile that diffusers gives most VAEs of films, and the smallest that is made here."""


@contextmanager
def shared_vae(vae: Any, group: Group) -> Iterator[None]:
    """The VAE decodes and encodes in tiles that the ranks of a group share.

    All of them decode and encode the same; what a single tile covers, each computes by itself.
    Afterwards the VAE has the attributes that it had before.

    Raises:
        ValueError: the tiles of this VAE cannot be shared.
    """
    with _replaced(vae, group.size, group):
        yield


@contextmanager
def tiled_vae(vae: Any, ranks: int) -> Iterator[None]:
    """The VAE decodes and encodes by itself, in the tiles that so many ranks would share."""
    with _replaced(vae, ranks, None):
        yield


@contextmanager
def _replaced(vae: Any, ranks: int, group: Group | None) -> Iterator[None]:
    _check(vae)
    before = dict(vars(vae))
    for name, network in (("decode", vae.decoder), ("encode", vae.encoder)):
        setattr(vae, name, partial(_run, vae, network, getattr(vae, name), ranks, group))
    vae.use_tiling = True
    try:
        yield
    finally:
        vars(vae).clear()
        vars(vae).update(before)


def _check(vae: Any) -> None:
    name = type(vae).__name__
    if name not in SUPPORTED:
        raise ValueError(f"ranks cannot share the tiles of {name}, only of {', '.join(SUPPORTED)}")
    if any(vae.config.get("decoder_inject_noise", ())):
        raise ValueError(
            f"ranks cannot share the tiles of this {name}: its decoder draws noise tile after tile "
            f"(decoder_inject_noise {vae.config.decoder_inject_noise})"
        )


@torch.no_grad()
def _run(
    vae: Any,
    network: nn.Module,
    method: Callable[..., Any],
    ranks: int,
    group: Group | None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """What the VAE's method returns; its network's calls are shared out if there is a group."""
    call = partial(method, *args, **kwargs)
    with _tile_size(vae):
        tiles = _recorded(vae, network, call)
        while len(tiles) < ranks and _halve(vae):
            tiles = _recorded(vae, network, call)
        if group is None or group.size == 1 or len(tiles) == 1:
            return call()
        results = _exchanged(tiles, network, group)
        with _stood_in(network, lambda *_, **__: results.popleft()):
            return call()


@contextmanager
def _tile_size(vae: Any) -> Iterator[None]:
    names = ("tile_sample_min_size", "tile_latent_min_size")
    sizes = {name: getattr(vae, name) for name in names if hasattr(vae, name)}
    try:
        yield
    finally:
        for name, size in sizes.items():
            setattr(vae, name, size)


def _halve(vae: Any) -> bool:
    """Halves the tiles, where they may be smaller.

    By default a tile of a picture VAE is a whole picture of the size that it was trained with
    (FLUX.1: 1024 pixels), which leaves nothing to share; the other VAEs have tiles of 256 or 512.
    A tile and its overlap, a quarter of it, become no smaller than theirs: 256 and 64 pixels.
    """
    size = getattr(vae, "tile_sample_min_size", 0)
    # Half a tile overlaps by whole latent pixels.
    if size < 2 * _SMALLEST or vae.tile_latent_min_size % 8:
        return False
    vae.tile_sample_min_size //= 2
    vae.tile_latent_min_size //= 2
    return True


@dataclass(slots=True)
class _Tile:
    """What the network is asked for a tile: a film's, once for every few frames.

    ``cache`` is the list in which causal convolutions keep the last frames of their tile.
    """

    cache: Any
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(args[0].numel() for args, _ in self.calls)

    def computed(self, network: nn.Module) -> list[Tensor]:
        return [network(*args, **kwargs) for args, kwargs in self.calls]

    def forget(self) -> None:
        self.cache = None
        self.calls.clear()


def _recorded(vae: Any, network: nn.Module, call: Callable[[], Any]) -> list[_Tile]:
    """The tiles that a call asks its network for, in their order."""
    tiles: list[_Tile] = []

    def record(*args: Any, **kwargs: Any) -> Tensor:
        cache = kwargs.get("feat_cache")
        if cache is None or not tiles or tiles[-1].cache is not cache:
            tiles.append(_Tile(cache))
        tiles[-1].calls.append((args, kwargs))
        sample = args[0]
        # Nothing can be cut and blended like any tile.
        nothing: Tensor = sample.new_empty([len(sample)] + [0] * (sample.ndim - 1))
        return nothing

    with _stood_in(network, record):
        quant_conv = getattr(vae, "quant_conv", None)
        if quant_conv is None:
            call()
        else:
            with _stood_in(quant_conv, lambda sample: sample):
                call()
    return tiles


def _exchanged(tiles: list[_Tile], network: nn.Module, group: Group) -> deque[Tensor]:
    """What the network makes of every call, in their order; each rank computes its share.

    The largest tiles are dealt first, one a rank and round: numbers differ by one at most, and
    tiles of about one size are padded to the largest of a round. Shapes and strides travel ahead.
    """
    sample = tiles[0].calls[0][0][0]
    calls = max(len(tile.calls) for tile in tiles)
    dealt = sorted(range(len(tiles)), key=lambda tile: -tiles[tile].size)
    rounds = [dealt[i : i + group.size] for i in range(0, len(dealt), group.size)]

    computed: deque[list[Tensor]] = deque()
    layouts = torch.zeros(len(rounds), calls, 2, sample.ndim, dtype=torch.int64)
    for own, tile in zip(layouts, dealt[group.index :: group.size], strict=False):
        computed.append(tiles[tile].computed(network))
        for layout, result in zip(own, computed[-1], strict=False):
            if result.dtype != sample.dtype:
                raise ValueError(f"of {sample.dtype} the VAE made {result.dtype}")
            dense = torch.empty_like(result, device="meta")
            layout.copy_(torch.tensor([dense.shape, dense.stride()]))
        tiles[tile].forget()

    by_rank = group.all_gather(layouts.to(sample.device)).tolist()
    results: dict[int, list[Tensor]] = {}
    for turn, turn_tiles in enumerate(rounds):
        of_turn = [own[turn] for own in by_rank]
        longest = max(sum(prod(shape) for shape, _ in layout) for layout in of_turn)
        send = sample.new_empty(longest)
        if computed:
            views = _views(send, of_turn[group.index])
            for view, result in zip(views, computed.popleft(), strict=True):
                view.copy_(result)
        received = group.all_gather(send)
        for tile, layout, row in zip(turn_tiles, of_turn, received, strict=False):
            results[tile] = [view.clone() for view in _views(row, layout)]
    return deque(result for tile in range(len(tiles)) for result in results.pop(tile))


def _views(flat: Tensor, layout: list[tuple[list[int], list[int]]]) -> Iterator[Tensor]:
    """The tensors of such shapes and strides that lie one after another; none that are empty.

    Strides as the network's: on the bits of a convolution that follows, they have a say.
    """
    at = flat.storage_offset()
    for shape, stride in layout:
        if prod(shape):
            yield flat.as_strided(shape, stride, at)
            at += prod(shape)


@contextmanager
def _stood_in(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """One module with another forward; whatever stood in for it already is put back."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before
