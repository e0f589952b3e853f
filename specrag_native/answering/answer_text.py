"""What of an answer can be shown while it is still being written.

Law: what is shown stands: it is a beginning of the answer that will be read from the whole text.
"""

from __future__ import annotations

import re

from specrag_native.prompts import read_answer
from specrag_native.types import Question

_OPENINGS = ("the answer is:", "the answer:", "answer is:", "answer:")
"""What :func:`~specrag_native.prompts.read_answer` takes from the beginning of an answer."""
_MAY_GO = re.compile(r"[\s.\"'`*]+$")


def settled(text: str, question: Question) -> str:
    """Return the part of an answer that is certain after ``text`` of it has been written.

    Of claims and choices, whose answer is read from the whole text, that is nothing.
    """
    if question.task != "qa":
        return ""
    answer = read_answer(text, question)
    begun = answer.lower().strip()
    if any(opening.startswith(begun) for opening in _OPENINGS):
        return ""
    return _MAY_GO.sub("", answer)
