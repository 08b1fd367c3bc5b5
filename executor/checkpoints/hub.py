"""Where a checkpoint comes from: a directory, or the hub by way of its cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from executor.checkpoints.weights import STEMS, VARIANT, variants_among
from executor.errors import PlacementError, one_line

# What diffusers writes, and what else may be one.
ADAPTER = "pytorch_lora_weights.safetensors"
ADAPTERS = ".safetensors"
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
        # What diffusers says to a variant that is nowhere.
        if f"`variant={variant}`" in str(error):
            raise PlacementError(
                f"--variant {variant}: {model} has no such weights{_at(revision)}, only "
                f"{' and '.join(('the plain ones', *sorted(_variants(model, revision))))}"
            ) from error
        raise PlacementError(
            f"{model}: neither a directory nor a model that the hub gives"
            f"{_at(revision)}{' offline' if is_offline() else ''}: {reason(error)}"
        ) from error


def resolve_adapter(lora: str) -> Path:
    """The one file of an adapter: itself, that of a directory, or of a repository on the hub.

    On the hub it is NAMESPACE/REPOSITORY, with /FILE behind where there are several.

    Raises:
        PlacementError: there is no such file, or more than one.
    """
    path = Path(lora)
    if path.is_file():
        return path.absolute()
    if path.is_dir():
        return path.absolute() / _only(lora, [file.name for file in path.iterdir()])
    repository, file = "/".join(lora.split("/")[:2]), "/".join(lora.split("/")[2:])
    if not is_hub_name(repository) or (file and not file.endswith(ADAPTERS)):
        raise PlacementError(f"--lora {lora}: no such file or directory")
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    offline = is_offline()
    try:
        if not file and offline:
            kept = Path(snapshot_download(repository, local_files_only=True))
            file = _only(lora, [path.name for path in kept.iterdir()])
        elif not file:
            file = _only(lora, HfApi().list_repo_files(repository))
        return Path(hf_hub_download(repository, file, local_files_only=offline))
    except PlacementError:
        raise
    except Exception as error:
        raise PlacementError(
            f"--lora {lora}: neither a file nor an adapter that the hub gives"
            f"{' offline' if offline else ''}: {reason(error)}"
        ) from error


def is_hub_name(model: str) -> bool:
    return not (Path(model).is_absolute() or model.startswith(".") or model.count("/") != 1)


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE


def reason(error: BaseException) -> str:
    """Why the hub did not give something: diffusers' words, or what led to them."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
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
        if isinstance(cause, LocalEntryNotFoundError):
            return "it is not in the cache" if is_offline() else one_line(cause)
        if isinstance(cause, EntryNotFoundError):
            return "there is no such file"
        cause = cause.__cause__ or cause.__context__
    return one_line(error)


def _variants(model: str, revision: str | None) -> set[str]:
    from huggingface_hub import HfApi, get_cached_repo_tree

    if is_offline():
        names = [file.path for file in get_cached_repo_tree(model, revision=revision)]
    else:
        names = HfApi().list_repo_files(model, revision=revision)
    return variants_among((name.rpartition("/")[2] for name in names), *STEMS.values())


def _only(lora: str, names: list[str]) -> str:
    files = sorted(name for name in names if name.endswith(ADAPTERS))
    if ADAPTER in files:
        return ADAPTER
    if not files:
        raise PlacementError(f"--lora {lora}: no file *{ADAPTERS}")
    if len(files) > 1:
        raise PlacementError(f"--lora {lora}: several files, name one: {', '.join(files)}")
    return files[0]


def _at(revision: str | None) -> str:
    return f" at revision {revision}" if revision is not None else ""
