"""Which passages belong together: one names the title of the other, or the question names both.

An answer that needs two passages is seldom found by similarity alone, as only one of them is like
the question, nor by reading each alone, as neither holds the answer.

Law: words decide and no model is asked; a link says what to read together, never what is true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specrag_native.types import Hit, Passage

_QUALIFIER = re.compile(r"\s*\([^()]*\)\s*\Z")
_LEAST_LETTERS = 4
"""Titles with fewer are found everywhere."""


@dataclass(frozen=True, slots=True)
class Links:
    """How the passages of a question belong together, by their ids.

    ``asked``: the titles of those that the question names. ``linked``: to each passage those of
    other titles of which one names the other, or that the question names with it.
    """

    asked: Mapping[str, str]
    linked: Mapping[str, frozenset[str]]


def links_of(question: str, passages: Sequence[Passage]) -> Links:
    """Return how passages belong together.

    A title stands for itself without what stands in brackets at its end. It has the same letters,
    large and small, in a passage that names it, and any in a question. Takes a search of every text
    for every title.
    """
    titles = [bare_title(p) for p in passages]
    asked = [_holds(question.lower(), title.lower()) for title in titles]
    holds = [[_holds(p.text, title) for title in titles] for p in passages]

    def belong(i: int, j: int) -> bool:
        if titles[i].lower() == titles[j].lower():
            return False
        return holds[i][j] or holds[j][i] or (asked[i] and asked[j])

    every = range(len(passages))
    return Links(
        {passages[i].id: titles[i].lower() for i in every if asked[i]},
        {passages[i].id: frozenset(passages[j].id for j in every if belong(i, j)) for i in every},
    )


def bare_title(passage: Passage) -> str:
    """Return a passage's title without what stands in brackets at its end."""
    return _QUALIFIER.sub("", passage.title).strip()


def asked_first(links: Links, hits: Sequence[Hit]) -> list[Hit]:
    """Return what the question names, then what is linked to the first of these, then the rest.

    Where it names none, the first hit counts as named. Inside each of the three the order stays as
    it was.
    """
    ids = [h.passage.id for h in hits]
    first = next((i for i in ids if i in links.asked), ids[0] if ids else "")

    def rank(hit: Hit) -> int:
        if hit.passage.id == first or hit.passage.id in links.asked:
            return 0
        return 1 if hit.passage.id in links.linked[first] else 2

    return sorted(hits, key=rank)


def _holds(text: str, title: str) -> bool:
    """Return whether a text holds a title, as words of its own."""
    if sum(c.isalnum() for c in title) < _LEAST_LETTERS or title not in text:
        return False
    return re.search(rf"(?<!\w){re.escape(title)}(?!\w)", text) is not None
