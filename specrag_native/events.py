"""What a streaming answer reports as it grows.

Law: events come in this order: one ``Retrieved``, any number of ``DraftText``, one ``Verified``,
one ``Answered``.
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
    """A draft grew by ``text``, in its ``rationale`` or its ``answer``."""

    draft: int
    part: Literal["rationale", "answer"]
    text: str


@dataclass(frozen=True, slots=True)
class Verified:
    """All drafts are written and scored."""

    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer; the last event."""

    answer: Answer


Event = Union[Retrieved, DraftText, Verified, Answered]  # noqa: UP007 (used at run time on 3.10)
OnEvent = Callable[[Event], None]
