"""The planner's attention backends are those of the dispatcher that executors attend with."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from executor.parallel.partial import merge_fault
from planner.compile.device import LEAST_FOR_BACKEND
from planner.config.attention import (
    ALIASES,
    MERGES_PARTS,
    REFUSES_MASKS,
    UNSUPPORTED,
    AttentionBackend,
)

NAMES = {backend.value for backend in AttentionBackendName}
KNOWN = set(get_args(AttentionBackend))


def test_every_name_is_accepted_or_refused_by_name() -> None:
    assert NAMES - KNOWN == {"_native_npu", "_native_xla"} == NAMES & UNSUPPORTED.keys()
    assert not KNOWN - NAMES


def test_other_names_are_none_of_them() -> None:
    assert not NAMES & ALIASES.keys()
    assert set(ALIASES.values()) <= KNOWN
    assert {each.instead for each in UNSUPPORTED.values()} <= KNOWN
    assert not KNOWN & UNSUPPORTED.keys()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_who_refuses_a_mask_is_known(name: str) -> None:
    source = inspect.getsource(_AttentionBackendRegistry._backends[AttentionBackendName(name)])
    refuses = "if attn_mask is not None:\n        raise ValueError" in source
    assert refuses == (name in REFUSES_MASKS)


def test_both_sides_agree_on_what_a_ring_can_merge() -> None:
    assert {name for name in KNOWN if merge_fault(2, "p2p", name) is None} == MERGES_PARTS


def test_no_device_is_refused_that_diffusers_takes() -> None:
    """Of the few backends for which diffusers names a least compute capability."""
    taken = {}
    for name, checks in _AttentionBackendRegistry._constraints.items():
        for bound in (inspect.getclosurevars(check).nonlocals for check in checks):
            if "major" in bound:
                taken[name.value] = 10 * bound["major"] + bound["minor"]
    assert taken
    assert {name: least for name, least in taken.items() if LEAST_FOR_BACKEND[name] > least} == {}
