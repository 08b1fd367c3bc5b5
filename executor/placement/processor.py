"""Qwen2-VL's processor for pictures and text alone."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2VLProcessor


class PictureProcessor(Qwen2VLProcessor):
    """Loads without a video processor, which transformers only has where torchvision is installed.

    A pipeline that edits pictures gives it no videos.
    """

    # What this takes is what transformers looks for in a checkpoint.
    def __init__(
        self, image_processor: Any, tokenizer: Any, chat_template: str | None = None
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            image_processor, tokenizer, chat_template=chat_template
        )
