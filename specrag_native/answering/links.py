"""Which passages belong together: one names the title of the other, or the question names both.

An answer that needs two passages is seldom found by similarity alone, as only one of them is like
the question; the other is named by the first.

Law: words decide and no model is asked; a link says what to read together, never what is true.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from specrag_native.types import Passage

_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*\Z")
_LEAST_LETTERS = 4
"""Titles with fewer are found everywhere."""


def linked(question: str, passages: Sequence[Passage]) -> list[frozenset[int]]:
    """Return, for each passage, the indices of those it belongs together with.

    Two passages do when their titles differ and one's text holds the other's title, or the
    question holds both titles. A title stands for itself without what stands in brackets at its
    end; letters have the same case in a passage, any case in a question. Takes a search of every
    text for every title.
    """
    titles = [_QUALIFIER.sub("", p.title).strip() for p in passages]
    asked = [_names(question.lower(), title.lower()) for title in titles]
    named = [[_names(p.text, title) for title in titles] for p in passages]

    def belong(i: int, j: int) -> bool:
        if titles[i].lower() == titles[j].lower():
            return False
        return named[i][j] or named[j][i] or (asked[i] and asked[j])

    every = range(len(passages))
    return [frozenset(j for j in every if belong(i, j)) for i in every]


def _names(text: str, title: str) -> bool:
    """Return whether a text holds a title, as words of its own."""
    if sum(c.isalnum() for c in title) < _LEAST_LETTERS or title not in text:
        return False
    return re.search(rf"(?<!\w){re.escape(title)}(?!\w)", text) is not None
