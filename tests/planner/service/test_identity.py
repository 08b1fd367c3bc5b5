from __future__ import annotations

import asyncio

from planner.access.identity import ANONYMOUS, Identity, Role, called_by, caller

ANNA = Identity("anna", frozenset({Role.CLIENT}))
ROOT = Identity("root", frozenset({Role.ADMIN}))
RANKS = Identity("ranks", frozenset({Role.EXECUTOR}))


def test_a_client_sees_its_own_generations_only() -> None:
    assert ANNA.may_see("anna")
    assert not ANNA.may_see("bert")
    assert not ANNA.may_see("")


def test_an_administrator_and_anonymous_see_all() -> None:
    for identity in (ROOT, ANONYMOUS):
        assert identity.sees_all
        assert identity.may_see("anna")
        assert identity.may_see("")


def test_an_executor_sees_none_even_of_its_name() -> None:
    assert not RANKS.may_see("ranks")


async def test_the_caller_is_of_its_task_only() -> None:
    async def seen(identity: Identity) -> Identity:
        with called_by(identity):
            await asyncio.sleep(0)
            return caller()

    assert await asyncio.gather(seen(ANNA), seen(ROOT)) == [ANNA, ROOT]
    assert caller() is ANONYMOUS
