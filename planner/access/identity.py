"""Who calls: bound to every call before its handler runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What an identity is for. An administrator may do what a client may, to everybody's work.

    A front is a replica of the planner, which calls on behalf of clients and administrators.
    """

    CLIENT = "client"
    EXECUTOR = "executor"
    ADMIN = "admin"
    FRONT = "front"


@dataclass(frozen=True, slots=True)
class Identity:
    """``name`` is what a generation keeps as its owner; empty where the planner asks for none."""

    name: str
    roles: frozenset[Role]

    @property
    def sees_all(self) -> bool:
        """Whether the generations of every owner are this identity's to see and to cancel."""
        return Role.ADMIN in self.roles

    def may_see(self, owner: str) -> bool:
        """Whether a generation of this owner exists as far as this identity is told."""
        return self.sees_all or (Role.CLIENT in self.roles and owner == self.name)

    def executor_name(self, name: str) -> str:
        """What an executor that calls itself so goes by; no other identity's goes by the same."""
        return f"{self.name}/{name}" if self.name else name

    def holds(self, executor_name: str) -> bool:
        """Whether an executor that goes by this name is one of this identity's."""
        return not self.name or executor_name.startswith(f"{self.name}/")


# Of a planner without credentials: everyone may do everything.
ANONYMOUS = Identity("", frozenset(Role))


@dataclass(eq=False, slots=True)
class Admission:
    """Of one call. ``ended``: what proved the identity does not any more, and the call ends."""

    identity: Identity
    ended: bool = False


_admission: ContextVar[Admission | None] = ContextVar("admission", default=None)


def caller() -> Identity:
    """The identity that the current call is made with."""
    admission = _admission.get()
    return ANONYMOUS if admission is None else admission.identity


def is_shown_out() -> bool:
    """Whether the current call ends because its caller is no longer known."""
    admission = _admission.get()
    return admission is not None and admission.ended


@contextmanager
def called_by(identity: Identity) -> Iterator[Admission]:
    """Binds the identity to what runs inside."""
    admission = Admission(identity)
    token = _admission.set(admission)
    try:
        yield admission
    finally:
        _admission.reset(token)
