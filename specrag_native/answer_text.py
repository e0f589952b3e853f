"""What of an answer can be shown while it is still being written.

Law: what is shown stands: it is a beginning of the answer that will be read from the whole text,
and nothing of a text that may still say "unknown".
"""

from __future__ import annotations

import itertools
import re

from specrag_native.prompts import is_unknown, read_answer
from specrag_native.types import Question

_OPENINGS = ("answer is:", "the answer is:")
_OPENING = re.compile(r"(the )?answer( is)?:? *|the ")
_UNKNOWN = (
    "unknown",
    "no answer",
    "none",
    "n/a",
    "cannot be determined",
    "unclear",
    *(
        f"not {word}"
        for word in (
            *("known", "mentioned", "stated", "given", "specified"),
            *("provided", "available", "found", "sure", "enough"),
        )
    ),
    *(
        "".join(words)
        for words in itertools.product(
            ("passage", "passages", "text", "evidence"), ("", " do", " does"), (" not", "n't")
        )
    ),
)
"""What :func:`~specrag_native.prompts.is_unknown` looks for at the beginning of an answer."""
_MAY_GO = re.compile(r"[\s.\"'`*]+$")


def settled(text: str, question: Question) -> str:
    """Return the part of an answer that is certain after ``text`` of it has been written.

    Of claims and choices, whose answer is read from the whole text, that is nothing.
    """
    if question.task != "qa":
        return ""
    answer = read_answer(text, question)
    return "" if may_be_unknown(answer) else _MAY_GO.sub("", answer)


def may_be_unknown(answer: str) -> bool:
    """Return whether an answer says "unknown", or could as it goes on."""
    begun = [answer.strip().casefold()]
    while opening := _OPENING.match(begun[-1]):
        begun.append(begun[-1][opening.end() :])
    return is_unknown(answer) or any(
        words.startswith(rest) for words in (*_OPENINGS, *_UNKNOWN) for rest in begun
    )
