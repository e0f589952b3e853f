"""Words of a text, for comparing texts.

Law: two words are the same when their stems are; a stem is found by a few rules on suffixes, no
dictionary, so that what matches can be told by looking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
# Scripts without spaces are compared by single characters.
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")

_STOP = (
    "a about above after again all also am an and any are as at be because been before being "
    "below between both but by can could did do does doing down during each few for from further "
    "had has have having he her here hers him his how i if in into is it its itself just me more "
    "most my no nor not now of off on once only or other our out over own s same she should so "
    "some such t than that the their them then there these they this those through to too under "
    "until up very was we were what when where which while who whom whose why will with would you "
    "your"
)
STOP_WORDS = frozenset(_STOP.split())


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a text: its stem, and where it stands."""

    stem: str
    start: int
    end: int

    @property
    def is_number(self) -> bool:
        """Whether the word holds a digit."""
        return any(c.isdigit() for c in self.stem)


def content_words(text: str) -> list[Word]:
    """Return the words of ``text`` in order, without stop words."""
    found = []
    for match in _WORD.finditer(text):
        word = match.group().lower()
        if word not in STOP_WORDS:
            found.append(Word(stem(word), *match.span()))
    return found


def stem(word: str) -> str:
    """Return a lower-case word without its usual English endings."""
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    for ending, least in (("ingly", 8), ("edly", 7), ("ing", 6), ("ied", 5), ("ies", 5)):
        if word.endswith(ending) and len(word) >= least:
            base = word[: -len(ending)]
            return base + "y" if ending in ("ied", "ies") else _undoubled(base)
    if word.endswith("ed") and len(word) >= 5:
        return _undoubled(word[:-2])
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def _undoubled(base: str) -> str:
    if len(base) > 3 and base[-1] == base[-2] and base[-1] not in "lsz":
        return base[:-1]
    return base[:-1] if base.endswith("e") and len(base) > 4 else base
