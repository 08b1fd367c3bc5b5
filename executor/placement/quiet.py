"""Keeps the libraries' chatter out of the executor's log."""

from __future__ import annotations

import logging

CHATTY = ("torchao", "torch.utils._pytree", "transformers", "diffusers")


def silence_libraries() -> None:
    """Errors only and no progress bars. Works fully only before diffusers is first imported."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Each of the three sets its own level again when it is imported.
    import transformers.utils.logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    import diffusers.utils.logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
