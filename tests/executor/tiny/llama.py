"""Llama and Mistral: a tokenizer with their special tokens, and the encoders."""

from __future__ import annotations

from transformers import (
    LlamaConfig,
    LlamaModel,
    LlamaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
)

from tests.executor.tiny import bpe

CORE = ("<unk>", "<s>", "</s>", "<pad>")
LLAMA = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
MISTRAL = ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]")
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
# Of messages whose content is a list of parts, as FLUX.2 writes them.
CHAT = """{{ bos_token }}{% for message in messages %}\
{% set role = 'SYSTEM_PROMPT' if message['role'] == 'system' else 'INST' %}\
[{{ role }}]{% for part in message['content'] %}{{ part['text'] }}{% endfor %}[/{{ role }}]\
{% endfor %}"""


def tokenizer(*specials: str, chat_template: str | None = None) -> LlamaTokenizer:
    pairs = bpe.of_text()
    return LlamaTokenizer(
        vocab=pairs.vocabulary(*CORE, *specials),
        merges=pairs.merges,
        pad_token="<pad>",
        extra_special_tokens=list(specials),
        chat_template=chat_template,
        padding_side="right",
    )


def vocabulary_size(*specials: str) -> int:
    return len(bpe.of_text().vocabulary(*CORE, *specials))


def llama_encoder(width: int) -> LlamaModel:
    """Three layers: HunyuanVideo reads the input of the last but one."""
    return LlamaModel(
        LlamaConfig(
            vocab_size=vocabulary_size(*LLAMA),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            **IDS,
        )
    ).eval()


def mistral_encoder(width: int) -> Mistral3ForConditionalGeneration:
    """Thirty layers, since FLUX.2 reads the outputs of layers 10, 20 and 30."""
    return Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config=MistralConfig(
                vocab_size=vocabulary_size(*MISTRAL),
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=30,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=width // 2,
                max_position_embeddings=512,
                **IDS,
            ),
            vision_config=PixtralVisionConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=1,
                image_size=28,
                patch_size=14,
            ),
            image_token_index=len(CORE) + MISTRAL.index("[IMG]"),
        )
    ).eval()
