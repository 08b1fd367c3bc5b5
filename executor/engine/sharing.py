"""What the engine asks of ranks that share a run; how they do it is not its business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from executor.engine.families import Streams

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Positional and named arguments of a call of a block."""


Exchanges = Mapping[tuple[str, str], tuple[int, int]]
"""Calls and bytes by kind of collective and group of the mesh."""


class GroupSharing(Protocol):
    """How ranks share the tokens of one block group: between its first block and its last, a rank
    holds its part of every stream.
    """

    def attached(self) -> AbstractContextManager[None]:
        """In which the group's blocks attend to the tokens of all ranks."""

    def enter(self, block_list: str, arguments: Arguments, *, opens: bool) -> Arguments:
        """This rank's part of what the model gives to a block of the list.

        ``opens``: it is the group's first block, whose streams are whole.
        """

    def leave(self, streams: Streams) -> Streams:
        """What the group's last block made of this rank's streams, whole again where it is read."""


class Halves(Protocol):
    """This rank and the one at its place in the other half, which runs the other forward."""

    @property
    def index(self) -> int:
        """Which of a step's two forwards this rank runs."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """A tensor of each, of one shape: (2, *shape)."""


class Sharing(Protocol):
    """The ranks of one run, seen from one of them."""

    @property
    def halves(self) -> Halves | None:
        """None where every rank runs every forward."""

    @property
    def shares_forwards(self) -> bool:
        """Whether several ranks run one forward together."""

    def attached(self, pipeline: Any) -> AbstractContextManager[None]:
        """In which the ranks share what the plan says beside the transformers."""

    @property
    def exchanges(self) -> Exchanges:
        """What this rank has exchanged for transformers since the run began."""

    def group(
        self, target: nn.Module, block_lists: Sequence[str], attention_backend: str
    ) -> GroupSharing | None:
        """None where every rank holds all tokens. The backend is what each of them attends with."""

    def residual_diff(self, reference: Tensor, change: Tensor) -> float:
        """The relative L1 change of what all ranks of a forward hold; the same on each of them."""
