"""Ranks that share a text encoder read what one process reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from executor.engine.program import Topology
from executor.parallel.mesh import World
from executor.parallel.tensor import NotSplittableError
from executor.parallel.text_encoders import split_text_encoder
from executor.parallel.wire import Collective, Count, Group, Ledger
from tests.executor.parallel.shared_runs import relative
from tests.executor.rank_farm import RankFarm
from tests.executor.tiny import clip
from tests.executor.tiny.weights import drawn

EXACT = 5e-6
SIZES = (2, 4)
BATCH, LENGTH, WIDTH, LAYERS, VOCABULARY = 2, 12, 32, 3, 40

_DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    # Two queries to a key.
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": 4,
    "pad_token_id": 0,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}


def _clip() -> nn.Module:
    sizes = {key: value for key, value in _DECODER.items() if key != "num_key_value_heads"}
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes))


def _t5(**options: Any) -> nn.Module:
    return transformers.T5EncoderModel(transformers.T5Config(**_T5 | options))


def _gated_t5() -> nn.Module:
    return _t5(feed_forward_proj="gated-gelu")


def _umt5() -> nn.Module:
    return transformers.UMT5EncoderModel(transformers.UMT5Config(**_T5))


def _llama(**options: Any) -> nn.Module:
    return transformers.LlamaModel(transformers.LlamaConfig(**_DECODER | options))


def _qwen3() -> nn.Module:
    return transformers.Qwen3Model(transformers.Qwen3Config(head_dim=4, **_DECODER))


def _qwen3_language_model() -> nn.Module:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(head_dim=4, **_DECODER))


def _qwen_vl_text() -> nn.Module:
    return transformers.Qwen2_5_VLTextModel(
        transformers.Qwen2_5_VLTextConfig(rope_parameters=_ROPE, **_DECODER)
    )


def _qwen_vl() -> nn.Module:
    return transformers.Qwen2_5_VLForConditionalGeneration(
        transformers.Qwen2_5_VLConfig(
            text_config={"rope_parameters": _ROPE, **_DECODER},
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": WIDTH,
                "fullatt_block_indexes": [0],
            },
        )
    )


def _mistral() -> nn.Module:
    return transformers.Mistral3ForConditionalGeneration(
        transformers.Mistral3Config(
            text_config=transformers.MistralConfig(head_dim=4, **_DECODER),
            vision_config=transformers.PixtralVisionConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=1,
                image_size=28,
                patch_size=14,
            ),
        )
    )


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "clip": _clip,
    "t5": _t5,
    "gated_t5": _gated_t5,
    "umt5": _umt5,
    "llama": _llama,
    "qwen3": _qwen3,
    "qwen3_language_model": _qwen3_language_model,
    "qwen_vl_text": _qwen_vl_text,
    "qwen_vl": _qwen_vl,
    "mistral": _mistral,
}


def build(encoder: Callable[..., nn.Module], **options: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return drawn(encoder(**options))


@torch.no_grad()
def read(encoder: nn.Module) -> tuple[Tensor, ...]:
    """The outputs of all layers, for a prompt and a shorter one."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (BATCH, LENGTH), generator=generator)
    mask = (torch.arange(LENGTH) < torch.tensor([[LENGTH], [7]])).long()
    ids = torch.where(mask.bool(), ids, 0)
    output = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    states: tuple[Tensor, ...] = output.hidden_states
    return tuple(state * mask[..., None] for state in states)


def _split(world: World, name: str) -> dict[int, Any]:
    expected = read(build(ENCODERS[name]))
    found = {}
    for size in SIZES:
        ulysses = world.size // size
        group = world.mesh(Topology(world.size, ulysses_size=ulysses, tp_size=size)).tp
        encoder = build(ENCODERS[name])
        split_text_encoder(encoder, group)
        before = dict(world.ledger.counts)
        states = read(encoder)
        counted = world.ledger.since(before)
        found[size] = max(map(relative, states, expected)), counted
    return found


@pytest.mark.parametrize("name", ENCODERS)
def test_a_split_encoder_reads_what_the_whole_one_does(rank_farm: RankFarm, name: str) -> None:
    once = BATCH * LENGTH * WIDTH * 4
    for found in rank_farm.run(max(SIZES), _split, name):
        for size in SIZES:
            difference, counted = found[size]
            assert difference < EXACT
            assert counted == {(Collective.ALL_REDUCE, "tp"): Count(2 * LAYERS, 2 * LAYERS * once)}


def _split_vision(world: World) -> float:
    picture = torch.randn(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    encoder, whole = (build(clip.vision_encoder) for _ in range(2))
    split_text_encoder(encoder, world.mesh(Topology(world.size, tp_size=world.size)).tp)
    with torch.no_grad():
        return relative(encoder(picture).last_hidden_state, whole(picture).last_hidden_state)


def test_clip_sees_as_it_reads(rank_farm: RankFarm) -> None:
    assert max(rank_farm.run(2, _split_vision)) < EXACT


def _bias_of_the_first_heads(world: World) -> float:
    expected = read(build(_t5))
    group = world.mesh(Topology(world.size, tp_size=world.size)).tp
    encoder, whole = build(_t5), build(_t5)
    split_text_encoder(encoder, group)
    name = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    heads = encoder.get_submodule(name).embedding_dim
    encoder.get_submodule(name).weight = nn.Parameter(
        whole.get_submodule(name).weight[:, :heads].clone()
    )
    return max(map(relative, read(encoder), expected))


def test_a_position_bias_of_other_heads_is_seen(rank_farm: RankFarm) -> None:
    assert max(rank_farm.run(2, _bias_of_the_first_heads)) > 1000 * EXACT


def apart(size: int) -> Group:
    return Group("tp", range(size), 0, None, Ledger())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_rank_holds_its_part_of_the_layers(name: str, size: int) -> None:
    encoder = build(ENCODERS[name])
    whole = {n: parameter.numel() for n, parameter in encoder.named_parameters()}
    split_text_encoder(encoder, apart(size))
    parts = {n: parameter.numel() for n, parameter in encoder.named_parameters()}
    assert parts.keys() == whole.keys()
    divided = {n for n in whole if parts[n] * size == whole[n]}
    assert all(parts[n] == whole[n] for n in whole.keys() - divided)
    matrices = [n for n in divided if n.endswith("weight") and "bias" not in n]
    # Four of the attention, and two or, where one gates, three of the feed-forward.
    each = 6 if name in ("clip", "t5") else 7
    assert len(matrices) == each * LAYERS
    assert not any("visual" in n or "vision" in n for n in divided)


def test_key_heads_that_do_not_divide_are_refused() -> None:
    encoder = build(_llama, num_key_value_heads=2)
    before = [parameter.shape for parameter in encoder.parameters()]
    with pytest.raises(NotSplittableError, match=r"k_proj: 2 heads do not divide by 4 ranks"):
        split_text_encoder(encoder, apart(4))
    assert [parameter.shape for parameter in encoder.parameters()] == before


def test_what_has_no_known_layers_is_refused() -> None:
    with pytest.raises(NotSplittableError, match=r"Linear: no split is known; known layers: CLIP"):
        split_text_encoder(nn.Linear(4, 4), apart(2))
