"""Whether an answer can have been read in passages, or only remembered by the model that gave it.

Law: words decide, and in doubt the answer passes: this catches what no passage mentions, not what a
passage mentions and does not say.
"""

from __future__ import annotations

from collections.abc import Sequence

from specrag_native.types import Passage, Question
from specrag_native.words import content_words, stem

LEAST = 0.5
"""Least share of an answer's own words that the passages must hold."""

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
_FIGURES = {stem(word): str(value) for value, word in enumerate(_NUMBERS)}


def stands_in(answer: str, question: Question, passages: Sequence[Passage]) -> bool:
    """Return whether passages mention what an answer says.

    Of the answer's words those count that the question does not hold already; its numbers must all
    be there, as words or figures, and of the rest at least :data:`LEAST`. Judgements (claims,
    choices, yes and no) are not to be found word for word, and pass.
    """
    if question.task != "qa" or answer.strip(" .").lower() in ("yes", "no"):
        return True
    own = _words(answer) - _words(question.text)
    if not own:
        return True
    said = _words("\n".join(f"{p.title}\n{p.text}" for p in passages))
    numbers = {word for word in own if word.isdigit()}
    others = own - numbers
    return numbers <= said and len(others & said) >= LEAST * len(others)


def _words(text: str) -> frozenset[str]:
    """Return the stems of a text's words, small numbers as figures."""
    return frozenset(_FIGURES.get(word.stem, word.stem) for word in content_words(text))
