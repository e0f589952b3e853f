"""Which passages belong together: one names the title of the other, or the question names both.

An answer that needs two passages is seldom found by similarity alone, as only one of them is like
the question; the other is named by the first.

Law: words decide and no model is asked; a link says what to read together, never what is true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from specrag_native.types import Passage

Links = Mapping[str, frozenset[str]]
"""Ids of the passages that a passage belongs together with, by its id."""

_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*\Z")
_LEAST_LETTERS = 4
"""Titles with fewer are found everywhere."""


def linked(question: str, passages: Sequence[Passage]) -> Links:
    """Return which passages belong together.

    Two passages do when their titles differ and one's text holds the other's title, or the
    question holds both titles. A title stands for itself without what stands in brackets at its
    end; letters have the same case in a passage, any case in a question. Takes a search of every
    text for every title.
    """
    titles = [_name(p) for p in passages]
    asked = [_asked(question, title) for title in titles]
    named = [[_holds(p.text, title) for title in titles] for p in passages]

    def belong(i: int, j: int) -> bool:
        if titles[i].lower() == titles[j].lower():
            return False
        return named[i][j] or named[j][i] or (asked[i] and asked[j])

    every = range(len(passages))
    return {
        p.id: frozenset(passages[j].id for j in every if belong(i, j))
        for i, p in enumerate(passages)
    }


def named_first(question: str, passages: Sequence[Passage]) -> list[int]:
    """Return passages as indices: what the question names, what is linked to the first, the rest.

    Where it names none, the first passage counts as named. Inside each of the three the order stays
    as it was.
    """
    if not passages:
        return []
    asked = [_asked(question, _name(p)) for p in passages]
    first = asked.index(True) if any(asked) else 0
    friends = linked(question, passages)[passages[first].id]

    def rank(i: int) -> int:
        if i == first or asked[i]:
            return 0
        return 1 if passages[i].id in friends else 2

    return sorted(range(len(passages)), key=rank)


def _name(passage: Passage) -> str:
    return _QUALIFIER.sub("", passage.title).strip()


def _asked(question: str, title: str) -> bool:
    return _holds(question.lower(), title.lower())


def _holds(text: str, title: str) -> bool:
    """Return whether a text holds a title, as words of its own."""
    if sum(c.isalnum() for c in title) < _LEAST_LETTERS or title not in text:
        return False
    return re.search(rf"(?<!\w){re.escape(title)}(?!\w)", text) is not None
