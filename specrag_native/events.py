"""What a streaming answer reports as it grows.

Law: events come in this order: one ``Retrieved``; for each round of drafting any number of
``DraftText`` and one ``Verified``; any number of ``AnswerText``; one ``Answered``. The texts of all
``AnswerText`` together are the answer: nothing of it is shown before it is certain to stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Union

from specrag_native.types import Answer, Hit, Verdict


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages were found, best first."""

    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class DraftText:
    """A draft grew by ``text``, in its ``rationale`` or its ``answer``.

    ``draft`` counts all drafts that were begun, from 0.
    """

    draft: int
    part: Literal["rationale", "answer"]
    text: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The drafts so far are written and scored."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class AnswerText:
    """The answer grew by ``text``: as the verifier writes it, or at once when a draft has won."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer; the last event."""

    answer: Answer


Event = Union[Retrieved, DraftText, Verified, AnswerText, Answered]  # noqa: UP007 (3.10, run time)
OnEvent = Callable[[Event], None]
