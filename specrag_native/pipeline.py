"""From a question to an answer: retrieve, cluster, draw subsets, draft, verify, decide, cite.

Law: this file tells the whole story and computes none of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from specrag_native import prompts, repair
from specrag_native.baselines import StandardRAG, probability
from specrag_native.citations import cite
from specrag_native.config import Config
from specrag_native.drafter import Drafter
from specrag_native.errors import ContextFullError, QuestionError
from specrag_native.events import Answered, DraftText, Event, OnEvent, Retrieved, Verified
from specrag_native.protocol import CancelFlag, Embedder, Engine, OnText
from specrag_native.subsets import draw_subsets
from specrag_native.types import (
    Answer,
    DecidedBy,
    Draft,
    Hit,
    Passage,
    Question,
    Scores,
    Usage,
    Verdict,
)
from specrag_native.verifier import Verifier, best, draft_score

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

Method = Literal["speculative", "standard", "drafter"]


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


class Retriever(Protocol):
    """Finds passages."""

    def search_with(self, question: str, vector: FloatArray | None, n: int = 10) -> list[Hit]:
        """Return up to ``n`` hits, best first, for a question and its embedding."""


class _Clock:
    """Seconds and usage per stage of one question."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.timings: dict[str, float] = {}
        self.usage: dict[str, Usage] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - begin

    def add(self, role: str, usage: Usage) -> None:
        self.usage[role] = self.usage.get(role, Usage()) + usage

    def finish(self) -> dict[str, float]:
        return {**self.timings, "total": time.perf_counter() - self.begin}


class Pipeline:
    """Answers questions from passages by Speculative RAG, or by one of its baselines.

    Args:
        models: the engines.
        retriever: finds passages; not needed when every call brings its own ``hits``.
        config: settings of the method.
    """

    def __init__(
        self, models: Models, retriever: Retriever | None = None, config: Config = Config()
    ) -> None:
        self.models = models
        self.retriever = retriever
        self.config = config

    def answer(
        self,
        question: str | Question,
        *,
        method: Method = "speculative",
        hits: Sequence[Hit] | None = None,
        question_vector: FloatArray | None = None,
        on_event: OnEvent | None = None,
        cancel: CancelFlag | None = None,
    ) -> Answer:
        """Answer a question.

        Args:
            question: a question, or its text.
            method: ``speculative``; ``standard``: the verifier reads all passages; ``drafter``:
                the draft with the highest rho_Draft, unverified.
            hits: passages to answer from, instead of retrieving them.
            question_vector: the question's embedding, if the caller has it; shape ``(d,)``.
            on_event: called with each event, from the thread that runs this call.
            cancel: stops the work within one physical batch.

        Raises:
            QuestionError: the question is empty, or does not fit a model's context.
            Cancelled: ``cancel`` was set.
        """
        asked = Question(question) if isinstance(question, str) else question
        if not asked.text.strip():
            raise QuestionError("the question is empty: ask something")
        emit = on_event or (lambda event: None)
        clock = _Clock()
        with clock.stage("retrieve"):
            if hits is None:
                if self.retriever is None:
                    raise QuestionError("there is no index to search: give hits or open an index")
                if question_vector is None:
                    question_vector = self.models.embedder.embed([asked.text])[0]
                hits = self.retriever.search_with(asked.text, question_vector, self.config.top)
        emit(Retrieved(tuple(hits)))
        run = {
            "speculative": self._speculative,
            "standard": self._standard,
            "drafter": self._drafter_alone,
        }[method]
        try:
            answer = run(asked, list(hits), question_vector, clock, emit, cancel)
        except ContextFullError as error:
            raise QuestionError(
                f"the question with its passages needs {error.n_tokens} tokens and {error.n_ctx} "
                "fit: shorten the question, or lower --per-draft or --top"
            ) from None
        emit(Answered(answer))
        return answer

    # --- Speculative RAG -------------------------------------------------------------------------

    def _speculative(
        self,
        question: Question,
        hits: list[Hit],
        question_vector: FloatArray | None,
        clock: _Clock,
        emit: Callable[[Event], None],
        cancel: CancelFlag | None,
    ) -> Answer:
        drafts = self._draft(question, hits, question_vector, clock, emit, cancel)
        with clock.stage("verify"):
            verdicts, usage = Verifier(self.models.verifier, self.config).verify(
                question, drafts, cancel=cancel
            )
        clock.add("verifier", usage)
        emit(Verified(tuple(verdicts)))

        winner = best(verdicts)
        trust = confidence(winner) if winner is not None else 0.0
        if winner is not None and trust >= self.config.repair_below:
            return self._from_draft(question, winner, "speculative", verdicts, clock)
        if self.config.repair != "off" and hits:
            with clock.stage("repair"):
                repaired = repair.read_passages(
                    self.models.verifier, self.config, question, verdicts, hits, cancel=cancel
                )
            clock.add("verifier", repaired.usage)
            if repaired.answer:
                return self._answer(
                    question,
                    repaired.answer,
                    "",
                    repaired.confidence,
                    repaired.decided_by,
                    repaired.passages,
                    verdicts,
                    clock,
                )
        elif winner is not None and trust >= self.config.abstain_below:
            return self._from_draft(question, winner, "speculative", verdicts, clock)
        return self._answer(
            question,
            prompts.ABSTAIN_TEXT,
            "",
            trust,
            "abstain",
            (),
            verdicts,
            clock,
        )

    def _draft(
        self,
        question: Question,
        hits: list[Hit],
        question_vector: FloatArray | None,
        clock: _Clock,
        emit: Callable[[Event], None],
        cancel: CancelFlag | None,
    ) -> list[Draft]:
        if not hits:
            return []
        config = self.config
        with clock.stage("cluster"):
            if question_vector is None:
                question_vector = self.models.embedder.embed([question.text])[0]
            subsets = draw_subsets(
                hits,
                question_vector,
                m=config.n_drafts,
                k=config.passages_per_draft,
                strategy=config.subsets,
                conditioning=config.conditioning,
                seed=config.seed,
            )
        with clock.stage("draft"):
            drafts, usage = Drafter(self.models.drafter, config).draft(
                question, subsets, on_text=_draft_text(emit), cancel=cancel
            )
        clock.add("drafter", usage)
        return drafts

    # --- Baselines -------------------------------------------------------------------------------

    def _drafter_alone(
        self,
        question: Question,
        hits: list[Hit],
        question_vector: FloatArray | None,
        clock: _Clock,
        emit: Callable[[Event], None],
        cancel: CancelFlag | None,
    ) -> Answer:
        drafts = self._draft(question, hits, question_vector, clock, emit, cancel)
        own = [draft_score(d, self.config.normalisation) for d in drafts]
        verdicts = [
            Verdict(d, Scores(draft=s, total=s), verified=False)
            for d, s in zip(drafts, own, strict=True)
        ]
        emit(Verified(tuple(verdicts)))
        known = [v for v in verdicts if not v.draft.unknown]
        winner = max(known, key=lambda v: v.scores.draft, default=None)
        if winner is None:
            return self._answer(
                question, prompts.ABSTAIN_TEXT, "", 0.0, "abstain", (), verdicts, clock
            )
        return self._from_draft(question, winner, "drafter", verdicts, clock)

    def _standard(
        self,
        question: Question,
        hits: list[Hit],
        question_vector: FloatArray | None,
        clock: _Clock,
        emit: Callable[[Event], None],
        cancel: CancelFlag | None,
    ) -> Answer:
        passages = tuple(h.passage for h in hits)
        with clock.stage("verify"):
            text, logprob, usage = StandardRAG(self.models.verifier, self.config).answer(
                question, passages, cancel=cancel
            )
        clock.add("verifier", usage)
        return self._answer(
            question, text, "", probability(logprob), "standard", passages, (), clock
        )

    # --- The answer ------------------------------------------------------------------------------

    def _from_draft(
        self,
        question: Question,
        winner: Verdict,
        decided_by: DecidedBy,
        verdicts: Sequence[Verdict],
        clock: _Clock,
    ) -> Answer:
        draft = winner.draft
        return self._answer(
            question,
            draft.answer,
            draft.rationale,
            confidence(winner),
            decided_by,
            draft.subset.passages,
            verdicts,
            clock,
        )

    def _answer(
        self,
        question: Question,
        text: str,
        rationale: str,
        confidence: float,
        decided_by: DecidedBy,
        passages: Sequence[Passage],
        verdicts: Sequence[Verdict],
        clock: _Clock,
    ) -> Answer:
        with clock.stage("cite"):
            cited = cite(rationale, text, passages)
        used = ("drafter", "verifier") if decided_by != "standard" else ("verifier",)
        return Answer(
            question=question.text,
            answer=text,
            rationale=rationale,
            confidence=confidence,
            decided_by=decided_by,
            citations=cited.citations,
            support=cited.support,
            unsupported=tuple(s.text for s in cited.unsupported),
            verdicts=tuple(verdicts),
            timings=clock.finish(),
            usage=clock.usage,
            models={role: getattr(self.models, role).name for role in used},
        )


def confidence(verdict: Verdict) -> float:
    """Return how far a draft can be trusted, 0..1.

    The share of its words that its own passages support, times the verifier's P(yes) / (P(yes) +
    P(no)), or the drafter's own mean probability of the answer when it was not verified.
    """
    draft = verdict.draft
    believed = verdict.support
    if believed is None:
        believed = math.exp(min(0.0, draft.answer_logprob.logprob_mean))
    said = f"{draft.rationale.rstrip('.')}. {draft.answer}" if draft.rationale else draft.answer
    return believed * cite(said, draft.answer, draft.subset.passages).support


def _draft_text(emit: Callable[[Event], None]) -> OnText:
    def on_text(draft: int, stage: int, text: str) -> None:
        emit(DraftText(draft, "rationale" if stage == 0 else "answer", text))

    return on_text
