"""What a transformer multiplies: enough to count its operations, parameters and exchanges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Rows(Enum):
    """Over which tokens of one forward a layer runs."""

    VECTOR = "vector"
    """One row: the conditioning vector."""
    IMAGE = "image"
    """The latent tokens, those of reference pictures included: the hidden stream of most blocks."""
    TEXT = "text"
    """The tokens of the encoder stream as the blocks see them."""
    JOINT = "joint"
    """IMAGE and TEXT as one sequence."""
    PROMPT = "prompt"
    """What the (first) text encoder gives."""
    GLYPH = "glyph"
    """What a second text encoder gives for text to be drawn."""
    VISION = "vision"
    """What an image encoder gives."""
    UNUSED = "unused"
    """Parameters that a forward of this pipeline does not use."""


def shares(tokens: int, ranks: int) -> list[int]:
    """How ranks share tokens: as evenly as possible, the first ranks get one more."""
    each, more = divmod(tokens, ranks)
    return [each + (rank < more) for rank in range(ranks)]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one forward for a batch of one."""

    image: int
    text: int
    prompt: int = 0
    glyph: int = 0
    vision: int = 0

    def of(self, rows: Rows) -> int:
        match rows:
            case Rows.VECTOR:
                return 1
            case Rows.JOINT:
                return self.image + self.text
            case Rows.UNUSED:
                return 0
            case _:
                return int(getattr(self, rows.value))


class Split(Enum):
    """How tensor parallelism divides a layer's weight, if it does."""

    NONE = "none"
    COLUMNS = "columns"
    """By outputs, the bias with them."""
    ROWS = "rows"
    """By inputs; the outputs of the ranks are summed (one all-reduce)."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix product with a weight; a convolution whose stride is its kernel counts as one.

    ``name`` is the module's name inside its block or transformer.
    """

    name: str
    rows: Rows
    inputs: int
    outputs: int
    bias: bool = True
    split: Split = Split.NONE
    convolution: bool = False

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        return self.weights + (self.outputs if self.bias else 0)

    def flops(self, tokens: TokenCounts) -> int:
        return 2 * tokens.of(self.rows) * self.weights


@dataclass(frozen=True, slots=True)
class Attention:
    """Scaled dot product attention over heads of ``width`` channels in all.

    ``exchanged``: queries and keys are of split sequences, so that ranks exchange them.
    ``normed``: those of its queries and keys that are normed across all heads, one norm for each.
    """

    queries: Rows
    keys: Rows
    width: int
    exchanged: bool = True
    normed: tuple[Rows, ...] = ()

    def flops(self, tokens: TokenCounts) -> int:
        return 4 * tokens.of(self.queries) * tokens.of(self.keys) * self.width


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a block, or those of a transformer that are in none of its block lists.

    ``vectors``: parameters of norms, tables and embeddings, which multiply no matrix; those of
    the norms across heads (``split_vectors``) are split with the heads.
    """

    linears: tuple[Linear, ...] = ()
    attentions: tuple[Attention, ...] = ()
    vectors: int = 0

    @property
    def parameters(self) -> int:
        return self.vectors + sum(linear.parameters for linear in self.linears)

    @property
    def split_vectors(self) -> int:
        return sum(len(attention.normed) * attention.width for attention in self.attentions)

    def flops(self, tokens: TokenCounts) -> int:
        """Operations of one forward, two for each multiplication with its addition."""
        return sum(linear.flops(tokens) for linear in self.linears) + sum(
            attention.flops(tokens) for attention in self.attentions
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """A target's layers: one block of each of its block lists, in their order, and the rest."""

    target: str
    blocks: tuple[Layers, ...]
    rest: Layers


def joined(*parts: Linear | Iterable[Linear]) -> tuple[Linear, ...]:
    return tuple(
        linear for part in parts for linear in ((part,) if isinstance(part, Linear) else part)
    )


def embedding(
    name: str,
    inputs: int,
    width: int,
    rows: Rows = Rows.VECTOR,
    *,
    bias: bool = True,
    layers: tuple[str, str] = ("linear_1", "linear_2"),
) -> tuple[Linear, ...]:
    """Two layers to a width: of timesteps, guidance, pooled or whole text."""
    first, second = layers
    return (
        Linear(f"{name}.{first}", rows, inputs, width, bias),
        Linear(f"{name}.{second}", rows, width, width, bias),
    )


def projections(
    name: str, layers: Iterable[str], rows: Rows, inputs: int, width: int, *, bias: bool = True
) -> tuple[Linear, ...]:
    """Layers of one size side by side (queries, keys, values), split by heads."""
    return tuple(
        Linear(f"{name}.{layer}", rows, inputs, width, bias, Split.COLUMNS) for layer in layers
    )


def feed_forward(
    up: str,
    down: str,
    rows: Rows,
    width: int,
    inner: int,
    *,
    bias: bool = True,
    gated: bool = False,
) -> tuple[Linear, ...]:
    """Up to ``inner`` channels (twice as many where half of them gate) and down again."""
    return (
        Linear(up, rows, width, inner * (2 if gated else 1), bias, Split.COLUMNS),
        Linear(down, rows, inner, width, bias, Split.ROWS),
    )
