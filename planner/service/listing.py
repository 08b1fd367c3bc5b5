"""The pages of a list, each of which goes on where the one before ended."""

from __future__ import annotations

import hashlib
import json
import re

from ditplan.v1 import generation_pb2

from planner.access.identity import Identity
from planner.errors import Violation, invalid
from planner.service.checks import check_model_name, seconds
from planner.service.models import ModelLookup
from planner.settings import Limits
from planner.store.interface import Store
from planner.store.values import Filter, State

_DEFAULT_PAGE = 100
# A page ends here even where it holds fewer generations: clients accept 4 MiB by default.
_MAX_PAGE_BYTES = 1 << 20
_MAX_STATES = 16
_TOKEN = re.compile(r"([1-9][0-9]{0,17})-([0-9a-f]{16})")


class Listing:
    def __init__(self, store: Store, models: ModelLookup, limits: Limits) -> None:
        self._store = store
        self._models = models
        self._limits = limits

    def page(
        self, request: generation_pb2.ListGenerationsRequest, caller: Identity
    ) -> generation_pb2.ListGenerationsResponse:
        """Of the generations that the caller may see; INVALID_ARGUMENT for the token of others."""
        _check(request, self._limits)
        wanted = Filter(
            owner=None if caller.sees_all else caller.name,
            states=frozenset(State(state) for state in request.states),
            model=self._models.canonical(request.model) if request.model else "",
            created_since=seconds(request.created_since)
            if request.HasField("created_since")
            else None,
        )
        before = _start(request.page_token, wanted)
        size = min(request.page_size or _DEFAULT_PAGE, self._limits.page_size)
        response = generation_pb2.ListGenerationsResponse()
        total = 0
        for number, generation in self._store.page(before, size + 1, wanted):
            if len(response.generations) == size or total > _MAX_PAGE_BYTES:
                response.next_page_token = f"{number + 1}-{_digest(wanted)}"
                break
            if not caller.sees_all:
                generation.ClearField("owner")
            response.generations.append(generation)
            total += generation.ByteSize()
        return response


def _check(request: generation_pb2.ListGenerationsRequest, limits: Limits) -> None:
    found = []
    known = set(generation_pb2.GenerationState.values()) - {0}
    for i, state in enumerate(request.states):
        if state not in known:
            found.append(Violation(f"states[{i}]", f"{state} is no state of a generation"))
    if len(request.states) > _MAX_STATES:
        found = [Violation("states", f"are more than {_MAX_STATES}")]
    if request.model:
        found.extend(check_model_name(request.model, "model", limits))
    if request.HasField("created_since") and seconds(request.created_since) is None:
        found.append(Violation("created_since", "is no time"))
    if request.page_token and _TOKEN.fullmatch(request.page_token) is None:
        found.append(Violation("page_token", "was not made by ListGenerations"))
    if found:
        raise invalid(found)


def _start(token: str, wanted: Filter) -> int | None:
    if not token:
        return None
    number, _, digest = token.partition("-")
    if digest != _digest(wanted):
        raise invalid([Violation("page_token", "belongs to a list with other filters")])
    return int(number)


def _digest(wanted: Filter) -> str:
    states = sorted(state.value for state in wanted.states)
    text = json.dumps([wanted.owner, states, wanted.model, wanted.created_since])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
