"""A block group whose tokens ranks share, as evenly as possible and in their order."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from executor.engine.families import FAMILIES as CONVENTIONS
from executor.engine.families import Streams
from executor.engine.program import Topology
from executor.engine.sharing import Arguments
from executor.parallel.attention import SharedAttention, SharedTokens, attending
from executor.parallel.mesh import Mesh
from executor.parallel.sequence_families import FAMILIES, KeyMask, Part, SharedList, Tokens
from executor.parallel.wire import padded, share_of, shares

_TOKEN_DIM = 1
"""Streams are (batch, tokens, channels)."""


class UnsharedFamilyError(ValueError):
    """It is not known how tokens of this transformer can be shared."""


class SharedGroup:
    """The blocks of one group of a transformer, on one rank of a sequence group."""

    def __init__(
        self,
        target: nn.Module,
        block_lists: Sequence[str],
        mesh: Mesh,
        topology: Topology,
        attention_backend: str,
    ) -> None:
        target_class = type(target).__name__
        if target_class not in FAMILIES:
            raise UnsharedFamilyError(
                f"the tokens of {target_class} cannot be shared; those of these can: "
                f"{', '.join(sorted(FAMILIES))}"
            )
        self._lists = {
            name: _List(
                FAMILIES[target_class][name],
                CONVENTIONS[target_class][name].takes,
                getattr(target, name),
            )
            for name in block_lists
        }
        self._whole = self._lists[block_lists[-1]].shared.whole
        self._ranks = mesh.sequence
        self._attention = SharedAttention(mesh, topology, attention_backend)
        self._lengths: dict[Part, list[int]] = {}
        # By identity, with the argument itself, so that its identity stays its own.
        self._shares: dict[int, tuple[Any, Any]] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        processors = [p for each in self._lists.values() for p in each.processors()]
        with attending(processors, self._attention):
            try:
                yield
            finally:
                self._shares.clear()
                self._attention.tokens = SharedTokens([])

    def enter(self, block_list: str, arguments: Arguments, *, opens: bool) -> Arguments:
        each = self._lists[block_list]
        names, (args, kwargs) = each.parameters, arguments
        given = dict(zip(names, args, strict=False)) | dict(kwargs)
        if opens:
            self._open(each, given)
            for name, part in each.streams:
                given[name] = self._own(given[name], Tokens(part, _TOKEN_DIM))
        for name, tokens in each.shared.arguments.items():
            if (value := given.get(name)) is not None:
                given[name] = self._known(value, tokens)
        mask = each.shared.key_mask
        if mask is not None and given.get(mask.name) is not None:
            given[mask.name] = (
                self._known(given[mask.name], Tokens(mask.part, -1)) if mask.is_needed else None
            )
        return tuple(given[name] for name in names[: len(args)]), {
            name: given[name] for name in kwargs
        }

    def leave(self, streams: Streams) -> Streams:
        self._shares.clear()
        parts = (Part.HIDDEN, Part.ENCODER)
        return tuple(
            self._gathered(stream, self._lengths[parts[i]]) if i in self._whole else stream
            for i, stream in enumerate(streams)
        )

    def _open(self, each: _List, given: Mapping[str, Any]) -> None:
        """Divides the tokens of a new forward."""
        self._shares.clear()
        size = self._ranks.size
        self._lengths = {
            part: shares(given[name].shape[_TOKEN_DIM], size) for name, part in each.streams
        }
        for part, lengths in self._lengths.items():
            if not lengths[-1]:
                raise ValueError(
                    f"{size} ranks cannot share the {sum(lengths)} tokens of the "
                    f"{part.value} stream"
                )
        joint = each.shared.joint
        of_ranks = [[self._lengths[part][rank] for part in joint] for rank in range(size)]
        self._attention.tokens = SharedTokens(
            [sum(of_rank) for of_rank in of_ranks],
            self._key_mask(each.shared.key_mask, joint, of_ranks, given),
        )

    def _key_mask(
        self,
        mask: KeyMask | None,
        joint: tuple[Part, ...],
        of_ranks: list[list[int]],
        given: Mapping[str, Any],
    ) -> Tensor | None:
        """Which tokens are attended to, in the order in which the ranks hold them."""
        if mask is None or (value := given.get(mask.name)) is None:
            return None
        batch = value.shape[0]
        value = value.reshape(batch, -1).bool()
        if mask.part is Part.JOINT:
            by_part = torch.split(value, [sum(self._lengths[part]) for part in joint], dim=1)
        else:
            by_part = tuple(
                value if part is mask.part else value.new_ones(batch, sum(self._lengths[part]))
                for part in joint
            )
        shares_of_parts = [
            torch.split(known, self._lengths[part], dim=1)
            for known, part in zip(by_part, joint, strict=True)
        ]
        ordered = [part[rank] for rank in range(len(of_ranks)) for part in shares_of_parts]
        return torch.cat(ordered, dim=1).view(batch, 1, 1, -1)

    def _known(self, value: Any, tokens: Tokens | tuple[Tokens, ...]) -> Any:
        """This rank's share of an argument, which most blocks of a forward get alike."""
        found = self._shares.get(id(value))
        if found is None:
            found = self._shares[id(value)] = (value, self._own(value, tokens))
        return found[1]

    def _own(self, value: Any, tokens: Tokens | tuple[Tokens, ...]) -> Any:
        if isinstance(value, tuple | list):
            each = tokens if isinstance(tokens, tuple) else (tokens,) * len(value)
            return tuple(self._own(v, t) for v, t in zip(value, each, strict=True))
        assert isinstance(tokens, Tokens)
        if tokens.ndim not in (None, value.ndim) or value.shape[tokens.dim] == 1:
            return value
        if tokens.part is not Part.JOINT:
            return share_of(value, tokens.dim, self._lengths[tokens.part], self._ranks.index)
        parts = torch.split(value, [sum(n) for n in self._lengths.values()], dim=tokens.dim)
        return torch.cat(
            [
                share_of(part, tokens.dim, lengths, self._ranks.index)
                for part, lengths in zip(parts, self._lengths.values(), strict=True)
            ],
            dim=tokens.dim,
        )

    def _gathered(self, stream: Tensor, lengths: list[int]) -> Tensor:
        gathered = self._ranks.all_gather(padded(stream, _TOKEN_DIM, lengths[0]))
        if lengths[0] == lengths[-1]:
            # (ranks, batch, tokens, channels), all full.
            return gathered.transpose(0, 1).flatten(1, 2)
        return torch.cat([part[:, :n] for part, n in zip(gathered, lengths, strict=True)], dim=1)


class _List:
    """One block list, and what its blocks are given."""

    def __init__(self, shared: SharedList, streams: tuple[str, ...], blocks: nn.ModuleList) -> None:
        self.shared = shared
        self._blocks = blocks
        by_part = dict(zip((Part.HIDDEN, Part.ENCODER), streams, strict=False))
        # In the order of attention.
        self.streams = [(by_part[part], part) for part in shared.joint]
        self.parameters = list(inspect.signature(type(blocks[0]).forward).parameters)[1:]

    def processors(self) -> Iterator[Any]:
        for block in self._blocks:
            for name in self.shared.attentions:
                yield block.get_submodule(name).processor
