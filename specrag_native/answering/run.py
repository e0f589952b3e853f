"""One question on its way to an answer: its clock, its budget, its flag and its events.

Law: what is shown of an answer is never taken back, and every token that was counted is counted
once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from specrag_native.answering.budget import Budget
from specrag_native.answering.deadline import Deadline
from specrag_native.answering.links import Links, links_of
from specrag_native.errors import Cancelled
from specrag_native.events import AnswerText, Event, OnEvent
from specrag_native.protocol import CancelFlag, CrossEncoder, Embedder, Engine
from specrag_native.types import Hit, Passage, Question, Usage

if TYPE_CHECKING:
    from specrag_native.types import FloatArray


class Models(Protocol):
    """The engines of a session; each may load when first asked for."""

    @property
    def drafter(self) -> Engine:
        """Writes drafts."""

    @property
    def verifier(self) -> Engine:
        """Scores drafts, and reads passages for standard RAG and repair."""

    @property
    def embedder(self) -> Embedder:
        """Embeds questions."""

    @property
    def reranker(self) -> CrossEncoder:
        """Ranks hits again; asked for only with the setting ``rerank``."""

    @property
    def hop_ranker(self) -> CrossEncoder:
        """Finds the passage that completes another; only with the setting ``multihop_above``."""


@dataclass(slots=True)
class Cost:
    """Seconds and usage per model role of a stretch of work."""

    seconds: float = 0.0
    usage: dict[str, Usage] = field(default_factory=dict)


class Run:
    """One question on its way to an answer; a context, in which the deadline is watched."""

    def __init__(
        self,
        question: Question,
        *,
        budget: Budget,
        on_event: OnEvent | None = None,
        cancel: CancelFlag | None = None,
    ) -> None:
        self.question = question
        self.budget = budget
        self.hits: Sequence[Hit] = ()
        self.ranked = False
        """Whether the hits have an order, the best first; given ones have none."""
        self.relevance = 1.0
        """The probability that the best of them answers, by a cross-encoder; 1: none was asked."""
        self.hops: tuple[Passage, ...] = ()
        """The passages that are to be read together, where the question takes several."""
        self.vector: FloatArray | None = None
        self.usage: dict[str, Usage] = {}
        self.skipped: list[str] = []
        """What was not done because it could not have changed the answer."""
        self.too_long: list[str] = []
        """What was not done because it does not fit into a model's context."""
        self._on_event = on_event
        self._deadline = Deadline(budget.seconds, cancel)
        self._begin = time.perf_counter()
        self._first_event: float | None = None
        self._timings: dict[str, float] = {}
        self._costs: list[Cost] = []
        self._said = ""
        self._links: Links | None = None

    def __enter__(self) -> Run:
        self._deadline.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._deadline.__exit__()

    @property
    def links(self) -> Links:
        """How the hits belong together by their titles."""
        if self._links is None:
            self._links = links_of(self.question.text, [h.passage for h in self.hits])
        return self._links

    # --- Time ------------------------------------------------------------------------------------

    @property
    def flag(self) -> CancelFlag | None:
        """What stops a call of an engine: the caller, or the end of the budget."""
        return self._deadline.flag

    @property
    def time_is_up(self) -> bool:
        """Whether the budget is spent."""
        return self._deadline.up

    def check(self) -> None:
        """Raise ``Cancelled`` when the caller has cancelled."""
        self._deadline.check()

    @contextmanager
    def may_be_cut(self, what: str) -> Iterator[None]:
        """Let the end of the budget stop a call: then ``what`` was left out, and work goes on.

        Raises:
            Cancelled: the caller has cancelled.
        """
        try:
            yield
        except Cancelled:
            self.check()
            if not self.time_is_up:
                raise
            self.budget.leave_out(what)
        self.check()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of a stretch of work to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._timings[name] = self._timings.get(name, 0.0) + time.perf_counter() - begin

    def timings(self) -> dict[str, float]:
        """Return seconds per stage, until the first event, and in total until now."""
        first = {} if self._first_event is None else {"first_event": self._first_event}
        return {**self._timings, **first, "total": time.perf_counter() - self._begin}

    # --- Tokens ----------------------------------------------------------------------------------

    def add(self, role: str, usage: Usage) -> None:
        """Count what a call of an engine used, and learn its pace."""
        self.budget.pace(role).observe(usage)
        for counted in (self.usage, *(cost.usage for cost in self._costs)):
            counted[role] = counted.get(role, Usage()) + usage

    @contextmanager
    def measured(self) -> Iterator[Cost]:
        """Measure a stretch of work; the seconds are known behind it."""
        cost = Cost()
        self._costs.append(cost)
        begin = time.perf_counter()
        try:
            yield cost
        finally:
            self._costs.remove(cost)
            cost.seconds = time.perf_counter() - begin

    # --- Events ----------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Report an event."""
        if self._first_event is None:
            self._first_event = time.perf_counter() - self._begin
        if self._on_event is not None:
            self._on_event(event)

    def say(self, answer: str) -> None:
        """Show an answer as far as it stands; what was shown of it before is not shown again."""
        assert answer.startswith(self._said), f"{self._said!r} was shown, then {answer!r}"
        if len(answer) > len(self._said):
            self.emit(AnswerText(answer[len(self._said) :]))
            self._said = answer
