"""Made-up questions that take two passages, from questions that are answered by one.

Few sets mark what several passages answer together. Where a question names the title of its
passage, and another passage names that title too, the title in the question can give way to words
around it there: then that other passage is needed to know what is asked about.

Law: the same passages, question and seed give the same bridges.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from specrag_native.answering.links import bare_title
from specrag_native.evaluation.datasets import Example
from specrag_native.types import Passage

_LEAST_LETTERS = 4
"""Titles with fewer stand everywhere."""
_LEAST_WORDS, _MOST_WORDS = 2, 4
"""Words before a title that describe what bears it."""
_WORD = re.compile(r"\w[\w'\-]*")
_BREAK = re.compile(r"[.;()]\s")


@dataclass(frozen=True, slots=True)
class Bridge:
    """A made-up question, and the passage that has to be read ``first`` to know what it asks."""

    question: str
    first: Passage


class Titles:
    """Finds in a passage the titles of others."""

    def __init__(self, titles: Iterable[str]) -> None:
        self._by_first: dict[str, list[str]] = defaultdict(list)
        for title in sorted(set(titles)):
            match = _WORD.search(title)
            if match and match.start() == 0 and _telling(title):
                self._by_first[match.group()].append(title)

    def named_in(self, passage: Passage) -> dict[str, int]:
        """Return the titles that a passage names, and where first; none that its own holds."""
        own = title_of(passage).lower()
        found: dict[str, int] = {}
        for word in _WORD.finditer(passage.text):
            for title in self._by_first.get(word.group(), ()):
                if (
                    title not in found
                    and passage.text.startswith(title, word.start())
                    and re.compile(_whole(title)).match(passage.text, word.start())
                    and title.lower() not in own
                ):
                    found[title] = word.start()
        return found


class Bridges:
    """Makes bridges of questions.

    Args:
        passages: the first passages are drawn of these.
        questions: of which bridges will be made.
    """

    def __init__(self, passages: Sequence[Passage], questions: Iterable[Example]) -> None:
        titles = Titles(title for e in questions if (title := _named(e)))
        self._mentions: dict[str, list[tuple[Passage, int]]] = defaultdict(list)
        for passage in passages:
            if passage.title:
                for title, at in titles.named_in(passage).items():
                    self._mentions[title].append((passage, at))

    def of(self, example: Example, n: int, rng: random.Random) -> Iterator[Bridge]:
        """Yield up to ``n`` bridges of a question; none where it does not name its passage."""
        title = _named(example)
        found = self._mentions.get(title, ()) if title else ()
        for passage, at in rng.sample(found, min(n, len(found))):
            said = _description(passage, at, rng)
            match = re.search(_whole(title), example.question.text, re.I)
            if match:
                begin, end = match.span()
                text = example.question.text
                yield Bridge(f"{text[:begin]}{said}{text[end:]}", passage)


def title_of(passage: Passage) -> str:
    """Return a passage's title as a text would name it."""
    return bare_title(passage).replace("_", " ")


def _named(example: Example) -> str:
    """Return the title of the marked passage where the question names it, else an empty string."""
    marked = next((p for p in example.passages if p.id in example.relevant), None)
    title = title_of(marked) if marked else ""
    named = _telling(title) and re.search(_whole(title), example.question.text, re.I)
    return title if named else ""


def _telling(title: str) -> bool:
    return sum(c.isalnum() for c in title) >= _LEAST_LETTERS


def _description(passage: Passage, at: int, rng: random.Random) -> str:
    """Return words for what a passage names at ``at``: some of those before it, and its title."""
    own = title_of(passage)
    before = _BREAK.split(passage.text[max(0, at - 60) : at])[-1].split()
    mentioned = set(own.split())
    words = [w for w in before if w not in mentioned]
    said = " ".join(words[-rng.randint(_LEAST_WORDS, _MOST_WORDS) :])
    if not said:
        return f"the one of {own}"
    forms = (f"the {said} of {own}", f"the one that {own} {said}", f"that of {own}")
    return rng.choice((*forms, f"{own}'s {said}"))


def _whole(title: str) -> str:
    return rf"(?<!\w){re.escape(title)}(?!\w)"
