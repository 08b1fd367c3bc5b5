"""Says in what a plan and the connected executors differ: pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from planner.diagnostics import Diagnostic, Severity
from planner.dispatch.differences import (
    Difference,
    could_reload,
    differences,
    hindrances,
    listed,
)
from planner.dispatch.matching import Offer, Requirement

_MAX_GROUPS = 8
_MAX_NAMES = 8
# The message of a status is cut behind 600 bytes.
_MAX_TEXT = 480
_MAX_PART = 160
_MAX_MODEL = 80
# Of one executor: in a sentence, and in a list.
_MAX_JOINED = 4
_MAX_WORDS = 16


def why_none_matches(needed: Requirement, offers: Sequence[Offer]) -> str | None:
    """None where an offer matches, as it is or after a reload; else what differs.

    Executors that differ alike are named together; those that differ least come first.
    """
    if not offers:
        return "no executor is connected"
    if any(not differences(needed, offer) or could_reload(needed, offer) for offer in offers):
        return None
    served = any(offer.offered.model == needed.model for offer in offers)
    count = len(offers)
    if served:
        head = "no connected executor matches: "
    else:
        plural = "s" if count > 1 else ""
        name = _cut(needed.model, _MAX_MODEL)
        head = f"model {name!r} is not served by any of {count} connected executor{plural}: "
    parts = []
    for differs, lacking, group in _groups(needed, offers):
        text = f"{_who(group, count)} {_verb(group, differs)} {_has(differs)}{_names(group)}"
        wants = f"the plan wants {_wants(differs)}, " if served else ""
        also = f", and {'; '.join(lacking)}" if lacking else ""
        parts.append((f"{wants}{text}{also}", len(group)))
    return head + _bounded(parts, _MAX_TEXT - len(head))


def reload_hint(needed: Requirement, offers: Sequence[Offer]) -> Diagnostic | None:
    """What to tell of work that no connected executor could do without loading its model anew."""
    if any(not differences(needed, offer) for offer in offers):
        return None
    able = [offer for offer in offers if could_reload(needed, offer)]
    if not able:
        return None
    [(differs, _, group), *_] = _groups(needed, able)
    first = f"executor {_cut(group[0].executor)}"
    count = len(able) - 1
    rest = f", or one of {count} others," if count > 1 else ", or another," if count else ""
    message = (
        f"{first}{rest} loads its model anew for this plan, which wants {_wants(differs)}; "
        f"it {_verb(group[:1], differs)} {_has(differs)}"
    )
    return Diagnostic(Severity.HINT, "needs-reload", "", message)


def words(needed: Requirement, offer: Offer) -> list[str]:
    """In what an executor differs, a text each; the last counts those that are too many."""
    found = differences(needed, offer)
    texts = [
        f"the plan wants {_cut(each.wants)}, it {_verb([offer], [each])} {_cut(each.has)}"
        for each in found
    ]
    texts += _lacking(needed, offer) if found else []
    left = len(texts) - _MAX_WORDS
    return texts if left <= 0 else [*texts[:_MAX_WORDS], f"and {left} more differences"]


_Group = tuple[list[Difference], list[str], list[Offer]]


def _groups(needed: Requirement, offers: Sequence[Offer]) -> list[_Group]:
    """Offers that differ alike, each with what differs and what would differ after a reload."""

    def order(each: tuple[list[Difference], list[str], Offer]) -> tuple[object, ...]:
        differs, lacking, offer = each
        texts = [(difference.wants, difference.has) for difference in differs]
        other_model = offer.offered.model != needed.model
        return other_model, len(differs), texts, lacking, offer.executor

    found = sorted(
        ((differences(needed, offer), _lacking(needed, offer), offer) for offer in offers),
        key=order,
    )
    return [
        (differs, lacking, [offer for _, _, offer in group])
        for (differs, lacking), group in groupby(found, key=lambda each: each[:2])
    ]


def _lacking(needed: Requirement, offer: Offer) -> list[str]:
    return hindrances(needed, offer) if needed.model == offer.offered.model else []


def _bounded(parts: Sequence[tuple[str, int]], room: int) -> str:
    """As many texts as there is room for, and how many executors are left."""
    shown = [_cut(parts[0][0], room)]
    for text, _ in parts[1:_MAX_GROUPS]:
        if len("; ".join([*shown, text])) > room:
            break
        shown.append(text)
    left = sum(count for _, count in parts[len(shown) :])
    return "; ".join([*shown, *([f"and {left} more"] if left else [])])


def _who(group: Sequence[Offer], count: int) -> str:
    if len(group) == 1:
        return _cut(group[0].executor)
    return f"the {count} connected executors" if len(group) == count else f"{len(group)} executors"


def _verb(group: Sequence[Offer], differs: Sequence[Difference]) -> str:
    held = all(difference.held for difference in differs)
    if len(group) == 1:
        return "holds" if held else "has"
    return "hold" if held else "have"


def _names(group: Sequence[Offer]) -> str:
    """Of a group that is not named otherwise."""
    names = [_cut(offer.executor) for offer in group]
    return f" ({listed(names, _MAX_NAMES)})" if len(names) > 1 else ""


def _wants(differs: Sequence[Difference]) -> str:
    return _and([difference.wants for difference in differs])


def _has(differs: Sequence[Difference]) -> str:
    return _and([difference.has for difference in differs])


def _and(texts: Sequence[str]) -> str:
    more = [f"{len(texts) - _MAX_JOINED} more"] if len(texts) > _MAX_JOINED else []
    return " and ".join([*map(_cut, texts[:_MAX_JOINED]), *more])


def _cut(text: str, length: int = _MAX_PART) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
