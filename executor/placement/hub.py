"""Where a checkpoint comes from: a directory, or the hub by way of its cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from executor.placement.errors import PlacementError, one_line
from executor.placement.weights import VARIANT

TRUE = ("1", "ON", "YES", "TRUE")


def resolve(model: str, *, revision: str | None = None, variant: str | None = None) -> Path:
    """The real directory of a model: itself, or where the hub's cache keeps that revision of it.

    Only the files that loading reads are fetched, none where HF_HUB_OFFLINE is set.

    Raises:
        PlacementError: neither a directory nor a hub name that can be had.
    """
    if variant is not None and not re.fullmatch(VARIANT, variant):
        raise PlacementError(f"--variant {variant!r}: a part of file names such as fp16")
    path = Path(model)
    if path.is_dir():
        if revision is not None:
            raise PlacementError(
                f"--revision {revision}: {model} is a directory; only a name on the hub has any"
            )
        return path.resolve()
    if not is_hub_name(model):
        raise PlacementError(f"{model}: no such directory")
    from diffusers import DiffusionPipeline

    try:
        return Path(
            DiffusionPipeline.download(
                model,
                revision=revision,
                variant=variant,
                use_safetensors=True,
                local_files_only=is_offline(),
            )
        )
    except Exception as error:
        raise PlacementError(
            f"{model}: neither a directory nor a model that the hub gives"
            f"{_at(revision)}{' offline' if is_offline() else ''}: {reason(error)}"
        ) from error


def is_hub_name(model: str) -> bool:
    return not (Path(model).is_absolute() or model.startswith(".") or model.count("/") != 1)


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE


def reason(error: BaseException) -> str:
    """Why the hub did not give something: diffusers' words, or what led to them."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cause: BaseException | None = error
    while cause is not None:
        # A gated repository is one that is not found, by class.
        if isinstance(cause, GatedRepoError):
            return "its licence is to be accepted on the hub, and HF_TOKEN set to a token"
        if isinstance(cause, RepositoryNotFoundError):
            return "there is no such repository, or it needs a token in HF_TOKEN"
        if isinstance(cause, RevisionNotFoundError):
            return "there is no such revision"
        cause = cause.__cause__ or cause.__context__
    return one_line(error)


def _at(revision: str | None) -> str:
    return f" at revision {revision}" if revision is not None else ""
