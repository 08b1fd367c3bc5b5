"""The stages before the transformer, each kept in the work folder once it is done."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKL

from training.autoencoder import pictures, reconstruction_psnr, train_autoencoder
from training.captions import scene_of
from training.examples import make_examples
from training.scenes import evaluation_prompts, training_scenes
from training.text_encoders import TextEncoders, train_text_encoders

logger = logging.getLogger(__name__)

_SCENES, _EXAMPLES = 4_000, 40_000
_AUTOENCODER_STEPS, _TEXT_STEPS = 5_000, 800


@dataclass(frozen=True)
class Workplace:
    """The folder training keeps its intermediate results in."""

    folder: Path
    seed: int

    @property
    def examples(self) -> Path:
        """Latents and embeddings, see `Examples`."""
        return self.folder / "examples.pt"

    @property
    def checkpoint(self) -> Path:
        """The transformer in training, see `train_transformer`."""
        return self.folder / "transformer.pt"

    def autoencoder(self) -> AutoencoderKL:
        """Trains the autoencoder, or reads the one that is there."""
        folder = self.folder / "vae"
        if not folder.exists():
            scenes = training_scenes(_SCENES, self.seed)
            model = train_autoencoder(scenes, _AUTOENCODER_STEPS, self.seed)
            model.save_pretrained(folder)
            held_out = [scene_of(prompt) for prompt in evaluation_prompts(128, pairs=0.1)]
            psnr = reconstruction_psnr(model, pictures(held_out, self.seed))
            logger.info("autoencoder restores held-out pictures at %.1f dB", psnr)
        return AutoencoderKL.from_pretrained(folder)

    def text_encoders(self) -> TextEncoders:
        """Trains the text encoders, or reads those that are there."""
        if not (self.folder / "tokenizer_2").exists():
            scenes = training_scenes(_SCENES, self.seed)
            train_text_encoders(scenes, _TEXT_STEPS, self.seed).save(self.folder)
        return TextEncoders.load(self.folder)

    def make_examples(self) -> None:
        """Draws and encodes what the transformer learns from, unless that is there."""
        if not self.examples.exists():
            scenes = training_scenes(_EXAMPLES, self.seed + 1)
            logger.info("drawing and encoding %d scenes", _EXAMPLES)
            encoders = self.text_encoders()
            make_examples(scenes, self.autoencoder(), encoders, self.seed).save(self.examples)
