"""Finds what a model's name stands for: a served one, a published one, or a directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ditplan.v1 import executor_pb2

from planner.codec import placement_from_proto
from planner.compile.device import CPU
from planner.dispatch.matching import NATIVE_ATTENTION, Offer, Requirement
from planner.dispatch.roster import Connected
from planner.errors import ErrorReason, Violation, invalid
from planner.models.catalog import NAMED
from planner.models.facts import ModelFacts
from planner.models.resolve import UnknownModelError, from_configs, from_directory, from_name
from planner.store.values import StorageFullError

# Whose facts are at hand without being read again.
_MAX_FACTS = 256


@dataclass(frozen=True, slots=True)
class Model:
    """A model's facts, and the name under which executors are matched with it."""

    name: str
    facts: ModelFacts


class _Read(NamedTuple):
    """What executors that announce the same have in common."""

    facts: ModelFacts
    configs: Sequence[executor_pb2.ComponentConfig]


class Memory(Protocol):
    """What executors of earlier times announced; `Store` is one."""

    def remember_model(self, model: str, announced: executor_pb2.Executor) -> None: ...

    def remembered_model(self, model: str) -> executor_pb2.Executor | None: ...


class ModelLookup:
    """``roots`` are the directories below which a request may name a checkpoint's directory.

    A name that an executor has served is known from then on: work for it is refused, or waits, for
    want of an executor, not because nobody knows the name for a moment.
    """

    def __init__(self, roots: Iterable[Path], roster: Connected, memory: Memory) -> None:
        self._roots = tuple(root.resolve() for root in roots)
        self._roster = roster
        self._memory = memory
        # Facts of models by the digest of what was announced of them, the newest last.
        self._facts: dict[tuple[str, bytes], _Read] = {}

    def find(self, name: str, field: str) -> Model:
        """The model of that name; INVALID_ARGUMENT at ``field`` where there is none."""
        canonical = self.canonical(name)
        for offer in self._roster.connected():
            if offer.offered.model == canonical:
                return Model(canonical, offer.facts)
        try:
            if name in NAMED:
                return Model(canonical, from_name(name))
            directory = self._directory(name)
            if directory is not None:
                return Model(canonical, from_directory(directory))
            remembered = self._memory.remembered_model(canonical)
            if remembered is not None:
                return Model(canonical, self._read(canonical, remembered).facts)
            return Model(canonical, from_name(name))
        except UnknownModelError as unknown:
            raise invalid(
                [Violation(field, f"{unknown}; {self._served()}")], ErrorReason.UNKNOWN_MODEL
            ) from None

    def _read(self, model: str, executor: executor_pb2.Executor) -> _Read:
        """The configs that an executor announces; once as long as they are the same.

        INVALID_ARGUMENT where they cannot be understood.
        """
        configs = executor_pb2.Executor(component_configs=executor.component_configs)
        key = model, hashlib.sha256(configs.SerializeToString(deterministic=True)).digest()
        read = self._facts.pop(key, None)
        if read is None:
            read = _Read(_facts(model, executor), configs.component_configs)
            # A full disk is no reason to turn an executor away.
            with suppress(StorageFullError):
                self._memory.remember_model(model, executor)
        self._facts[key] = read
        if len(self._facts) > _MAX_FACTS:
            del self._facts[next(iter(self._facts))]
        return read

    def offer(self, executor: executor_pb2.Executor) -> Offer:
        """What an executor offers; INVALID_ARGUMENT where its configs cannot be understood."""
        model = self.canonical(executor.model)
        facts, configs = self._read(model, executor)
        placement = placement_from_proto(executor.placement)
        offered = Requirement(
            model,
            facts.architecture,
            executor.world_size,
            placement,
            executor.tp_size or 1,
            tuple(sorted(set(executor.extra_parallel_modules))),
        )
        # Of a CUDA device that does not say, nothing is known.
        device = CPU if executor.device == CPU else executor.compute_capability
        return Offer(
            executor.name,
            facts,
            offered,
            executor.dtype,
            device,
            tuple(sorted(set(executor.attention_backends))) or (NATIVE_ATTENTION,),
            executor.allow_reload,
            _without_configs(executor),
            configs,
        )

    def canonical(self, name: str) -> str:
        """One name for one directory, however a peer writes it."""
        directory = None if name in NAMED else self._directory(name)
        return name if directory is None else str(directory)

    def _directory(self, name: str) -> Path | None:
        try:
            path = Path(name).resolve()
            below = any(path.is_relative_to(root) for root in self._roots)
            return path if below and path.is_dir() else None
        except (OSError, ValueError, RuntimeError):
            return None

    def _served(self) -> str:
        served = sorted({offer.offered.model for offer in self._roster.connected()})
        if not served:
            return "no executor is connected"
        return f"connected executors serve: {', '.join(served[:10])}"


def _without_configs(executor: executor_pb2.Executor) -> executor_pb2.Executor:
    bare = executor_pb2.Executor()
    bare.CopyFrom(executor)
    bare.ClearField("component_configs")
    return bare


def _facts(model: str, executor: executor_pb2.Executor) -> ModelFacts:
    configs: dict[str, dict[str, Any]] = {}
    faults = []
    for i, component in enumerate(executor.component_configs):
        try:
            config = json.loads(component.json)
        except (ValueError, RecursionError) as error:
            config = error
        if isinstance(config, dict):
            configs[component.path] = config
        else:
            field = f"executor.component_configs[{i}].json"
            faults.append(Violation(field, f"{component.path} holds no JSON object"))
    if faults:
        raise invalid(faults)
    try:
        return from_configs(configs, name=model)
    except UnknownModelError as error:
        raise invalid(
            [Violation("executor.component_configs", str(error))], ErrorReason.UNKNOWN_MODEL
        ) from None
