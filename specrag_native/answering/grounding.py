"""Whether an answer can have been read in passages, or only remembered by the model that gave it.

Law: words decide, and in doubt the answer passes: this catches what no passage mentions, not what a
passage mentions and does not say.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from specrag_native.types import Passage, Question
from specrag_native.words import content_words, stem

LEAST = 0.5
"""Least share of an answer's own words that the passages must hold."""

LONG = 5
"""Letters from which on a word that begins another counts as the same: football and footballer."""

_JUDGEMENTS = frozenset(stem(word) for word in ("yes", "true", "false", "neither", "both"))

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_FIGURES = {word: value for value, word in enumerate(_SMALL)} | {
    word: 20 + 10 * i for i, word in enumerate(_TENS)
}
_NUMBER = re.compile(rf"\b(?:({'|'.join(_TENS)})[- ])?({'|'.join(_FIGURES)})\b")
_GROUPED = re.compile(r"(?<=\d)[,\u00a0\u202f](?=\d{3}\b)")


def stands_in(answer: str, question: Question, passages: Sequence[Passage]) -> bool:
    """Return whether passages mention what an answer says.

    Of the answer's words those count that the question does not hold already; its numbers must all
    be there, as figures or (below a hundred) words, and of the rest at least :data:`LEAST`. Case
    and accents do not matter. What has all words of the question and no other is the question, and
    stands nowhere. A word may be derived from another (:data:`LONG`), and words of other
    alphabets, whose endings are not known here, may end otherwise. Judgements (claims, choices, yes
    and no) are not to be found word for word, and pass; so does an answer in another script than
    that of the passages.
    """
    if question.task != "qa":
        return True
    text = _plain("\n".join(f"{p.title}\n{p.text}" for p in passages))
    asked = _plain(question.text)
    if passages and _is_latin(asked) != _is_latin(text):
        return True
    given, known = _words(_plain(answer)), _words(asked)
    if given and given == known:
        return False
    own = given - known - _JUDGEMENTS
    said = _words(text)
    numbers = {word for word in own if word.isdigit()}
    others = own - numbers
    found = sum(_mentioned(word, said, text) for word in others)
    return numbers <= said and found >= LEAST * len(others)


def is_judgement(answer: str) -> bool:
    """Return whether an answer only judges, as yes and false do, and names nothing to be found."""
    return _words(answer) <= _JUDGEMENTS


def echoes(answer: str, question: Question) -> bool:
    """Return whether an answer names only what the question does; one that judges names nothing."""
    own = _words(_plain(answer))
    return bool(own) and own <= _words(_plain(question.text))


def _plain(text: str) -> str:
    """Return a text in lower case without accents, with numbers as figures."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = _GROUPED.sub("", unicodedata.normalize("NFKC", "".join(letters)).lower())
    return _NUMBER.sub(lambda m: str(_FIGURES.get(m[1] or "", 0) + _FIGURES[m[2]]), plain)


def _is_latin(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    return sum(c.isascii() for c in letters) >= len(letters) / 2


def _mentioned(word: str, said: frozenset[str], text: str) -> bool:
    """Return whether a word stands in a text of which ``said`` are the words."""
    if word in said:
        return True
    if not word.isascii():
        return _begun(word) in text
    return len(word) >= LONG and any(
        other.startswith(word) or (len(other) >= LONG and word.startswith(other)) for other in said
    )


def _begun(word: str) -> str:
    """Return a word without the two letters that an ending could have changed."""
    return word[: max(2, len(word) - 2)]


def _words(text: str) -> frozenset[str]:
    return frozenset(word.stem for word in content_words(text))
