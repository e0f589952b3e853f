"""From a question to an answer: retrieve, cluster, draw subsets, draft, verify, decide, cite.

Law: this file tells the whole story and computes none of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from specrag_native import prompts, repair
from specrag_native.baselines import StandardRAG, probability
from specrag_native.budget import Budget, Pace, tokens_in
from specrag_native.citations import cite
from specrag_native.confidence import confidence
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


@dataclass(slots=True)
class _Run:
    """One question on its way to an answer."""

    question: Question
    hits: list[Hit]
    vector: FloatArray | None
    clock: _Clock
    budget: Budget
    emit: Callable[[Event], None]
    cancel: CancelFlag | None

    def add(self, role: str, usage: Usage) -> None:
        """Count what a call of an engine used, and learn its pace."""
        self.clock.add(role, usage)
        self.budget.pace(role).observe(usage)


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
        self._paces: dict[str, Pace] = {}

    def answer(
        self,
        question: str | Question,
        *,
        method: Method = "speculative",
        hits: Sequence[Hit] | None = None,
        question_vector: FloatArray | None = None,
        budget_s: float | None = None,
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
            budget_s: seconds the answer should take at most. Work that does not fit at the pace of
                earlier calls (drafts, verification, repair) is left out, and the answer says so in
                ``left_out``. Standard RAG knows no smaller way and disregards it.
            on_event: called with each event, from the thread that runs this call.
            cancel: stops the work within one physical batch.

        Raises:
            QuestionError: the question is empty, or does not fit a model's context.
            ConfigError: the budget is not above 0.
            Cancelled: ``cancel`` was set.
        """
        asked = Question(question) if isinstance(question, str) else question
        if not asked.text.strip():
            raise QuestionError("the question is empty: ask something")
        emit = on_event or (lambda event: None)
        budget = Budget(budget_s, self._paces)
        clock = _Clock()
        with clock.stage("retrieve"):
            if hits is None:
                if self.retriever is None:
                    raise QuestionError("there is no index to search: give hits or open an index")
                if question_vector is None:
                    question_vector = self.models.embedder.embed([asked.text])[0]
                hits = self.retriever.search_with(asked.text, question_vector, self.config.top)
        emit(Retrieved(tuple(hits)))
        run = _Run(asked, list(hits), question_vector, clock, budget, emit, cancel)
        work = {
            "speculative": self._speculative,
            "standard": self._standard,
            "drafter": self._drafter_alone,
        }[method]
        try:
            answer = work(run)
        except ContextFullError as error:
            raise QuestionError(
                f"the question with its passages needs {error.n_tokens} tokens and {error.n_ctx} "
                "fit: shorten the question, or lower --per-draft or --top"
            ) from None
        emit(Answered(answer))
        return answer

    # --- Speculative RAG -------------------------------------------------------------------------

    def _speculative(self, run: _Run) -> Answer:
        verdicts = self._verify(run, self._draft(run))
        run.emit(Verified(tuple(verdicts)))
        winner = best(verdicts)
        trust = self._trust(winner, verdicts) if winner is not None else 0.0
        if winner is not None and trust >= self.config.repair_below:
            return self._from_draft(run, winner, "speculative", verdicts)
        if self.config.repair != "off" and run.hits:
            with run.clock.stage("repair"):
                repaired = repair.read_passages(
                    self.models.verifier,
                    self.config,
                    run.question,
                    verdicts,
                    run.hits,
                    budget=run.budget,
                    cancel=run.cancel,
                )
            run.add("verifier", repaired.usage)
            if repaired.answer:
                return self._answer(
                    run,
                    repaired.answer,
                    "",
                    repaired.confidence,
                    repaired.decided_by,
                    repaired.passages,
                    verdicts,
                )
            if repaired.finished:  # the verifier read all it may and found nothing
                winner = None
        if winner is not None and trust >= self.config.abstain_below:
            return self._from_draft(run, winner, "speculative", verdicts)
        return self._answer(run, prompts.ABSTAIN_TEXT, "", trust, "abstain", (), verdicts)

    def _draft(self, run: _Run) -> list[Draft]:
        if not run.hits:
            return []
        config = self.config
        with run.clock.stage("cluster"):
            vector = run.vector
            if vector is None:
                vector = self.models.embedder.embed([run.question.text])[0]
            subsets = draw_subsets(
                run.hits,
                vector,
                m=config.n_drafts,
                k=config.passages_per_draft,
                strategy=config.subsets,
                conditioning=config.conditioning,
                seed=config.seed,
            )
        drafter = Drafter(self.models.drafter, config)
        tokens = max(tokens_in(*(p.text for p in s.passages)) for s in subsets)
        drafts: list[Draft] = []
        with run.clock.stage("draft"):
            # Under a budget, what fits is known once the drafter has run: one draft, then others.
            for _ in range(2):
                left = subsets[len(drafts) :]
                n = run.budget.drafts(len(left), tokens=tokens, decoded=config.max_rationale_tokens)
                if not left or (drafts and not run.budget.left):
                    break
                on_text = _draft_text(run.emit, first=len(drafts))
                written, usage = drafter.draft(
                    run.question, left[:n], on_text=on_text, cancel=run.cancel
                )
                drafts += written
                run.add("drafter", usage)
        if len(drafts) < len(subsets):
            run.budget.leave_out(f"{len(subsets) - len(drafts)} of {len(subsets)} drafts")
        return drafts

    def _verify(self, run: _Run, drafts: list[Draft]) -> list[Verdict]:
        texts = {(d.answer, d.rationale) for d in drafts if not d.unknown}
        tokens = sum(tokens_in(run.question.text, *text) for text in texts)
        if texts and not run.budget.fits("verifier", tokens):
            run.budget.leave_out("verification")
            return self._unverified(drafts)
        with run.clock.stage("verify"):
            verdicts, usage = Verifier(self.models.verifier, self.config).verify(
                run.question, drafts, cancel=run.cancel
            )
        run.add("verifier", usage)
        return verdicts

    def _unverified(self, drafts: list[Draft]) -> list[Verdict]:
        own = [draft_score(d, self.config.normalisation) for d in drafts]
        return [
            Verdict(d, Scores(draft=s, total=s), verified=False)
            for d, s in zip(drafts, own, strict=True)
        ]

    # --- Baselines -------------------------------------------------------------------------------

    def _drafter_alone(self, run: _Run) -> Answer:
        verdicts = self._unverified(self._draft(run))
        run.emit(Verified(tuple(verdicts)))
        winner = best(verdicts)
        if winner is None:
            return self._answer(run, prompts.ABSTAIN_TEXT, "", 0.0, "abstain", (), verdicts)
        return self._from_draft(run, winner, "drafter", verdicts)

    def _standard(self, run: _Run) -> Answer:
        passages = tuple(h.passage for h in run.hits)
        with run.clock.stage("verify"):
            text, logprob, usage = StandardRAG(self.models.verifier, self.config).answer(
                run.question, passages, cancel=run.cancel
            )
        run.add("verifier", usage)
        return self._answer(run, text, "", probability(logprob), "standard", passages, ())

    # --- The answer ------------------------------------------------------------------------------

    def _from_draft(
        self, run: _Run, winner: Verdict, decided_by: DecidedBy, verdicts: Sequence[Verdict]
    ) -> Answer:
        draft = winner.draft
        return self._answer(
            run,
            draft.answer,
            draft.rationale,
            self._trust(winner, verdicts),
            decided_by,
            draft.subset.passages,
            verdicts,
        )

    def _trust(self, verdict: Verdict, verdicts: Sequence[Verdict]) -> float:
        return confidence(verdict, verdicts, self.config.confidence_weights)

    def _answer(
        self,
        run: _Run,
        text: str,
        rationale: str,
        confidence: float,
        decided_by: DecidedBy,
        passages: Sequence[Passage],
        verdicts: Sequence[Verdict],
    ) -> Answer:
        with run.clock.stage("cite"):
            cited = cite(rationale, text, passages)
        used = ("drafter", "verifier") if decided_by != "standard" else ("verifier",)
        return Answer(
            question=run.question.text,
            answer=text,
            rationale=rationale,
            confidence=confidence,
            decided_by=decided_by,
            citations=cited.citations,
            support=cited.support,
            unsupported=tuple(s.text for s in cited.unsupported),
            verdicts=tuple(verdicts),
            timings=run.clock.finish(),
            usage=run.clock.usage,
            models={role: getattr(self.models, role).name for role in used},
            left_out=tuple(run.budget.left_out),
        )


def _draft_text(emit: Callable[[Event], None], *, first: int) -> OnText:
    def on_text(draft: int, stage: int, text: str) -> None:
        emit(DraftText(first + draft, "rationale" if stage == 0 else "answer", text))

    return on_text
