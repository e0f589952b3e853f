"""From a question to an answer: retrieve, cluster, draw subsets, draft, verify, decide, cite.

Law: this file tells the whole story and computes none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from specrag_native import prompts
from specrag_native.answering.answer_text import settled
from specrag_native.answering.baselines import StandardRAG, probability
from specrag_native.answering.budget import Budget, Pace
from specrag_native.answering.citations import cite
from specrag_native.answering.hops import look_for_hops
from specrag_native.answering.repair import (
    Repaired,
    agreeing_rationale,
    drafts_first,
    reads,
    reads_at_once,
    repair,
    steps_of,
)
from specrag_native.answering.reranking import rerank
from specrag_native.answering.rounds import Rounds
from specrag_native.answering.run import Models, Run
from specrag_native.config import Config
from specrag_native.errors import ContextFullError, QuestionError
from specrag_native.events import Answered, OnEvent, Retrieved
from specrag_native.protocol import CancelFlag, OnText
from specrag_native.types import Answer, DecidedBy, Hit, Passage, Question, Repair, Verdict

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

__all__ = ["Method", "Models", "Pipeline", "Retriever"]

Method = Literal["speculative", "standard", "drafter"]

OUT_OF_TIME_TEXT = "No answer was found in the time given."
"""The answer when a budget ended before anything was known: the documents may well say."""
TOO_LONG_TEXT = "No answer was found in the passages that fit into the model at once."
"""The answer when some could not be read, and those that could hold none."""


class Retriever(Protocol):
    """Finds passages."""

    def search_with(self, question: str, vector: FloatArray | None, n: int = 10) -> list[Hit]:
        """Return up to ``n`` hits, best first, for a question and its embedding."""


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
            hits: passages to answer from, in any order, instead of retrieving them.
            question_vector: the question's embedding, if the caller has it; shape ``(d,)``.
            budget_s: seconds the answer may take. Work that does not fit at the pace of earlier
                calls (drafts, verification, repair) is left out; what is still under way when time
                is up is stopped within one physical batch, and the best that is known by then is
                the answer, which says in ``left_out`` what is missing. Loading a model is not
                stopped.
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
        budget = Budget(budget_s, self._paces)
        with Run(asked, budget=budget, on_event=on_event, cancel=cancel) as run:
            run.vector = question_vector
            self._retrieve(run, hits)
            work = {
                "speculative": self._speculative,
                "standard": self._standard,
                "drafter": self._drafter_alone,
            }[method]
            try:
                answer = work(run)
            except ContextFullError as error:
                raise QuestionError(
                    f"the question with its passages needs {error.n_tokens} tokens and "
                    f"{error.n_ctx} fit: shorten the question, or lower --per-draft or --top"
                ) from None
            run.emit(Answered(answer))
        return answer

    def _retrieve(self, run: Run, hits: Sequence[Hit] | None) -> None:
        with run.stage("retrieve"):
            if hits is None:
                if self.retriever is None:
                    raise QuestionError("there is no index to search: give hits or open an index")
                text = run.question.text
                if run.vector is None:
                    run.vector = self.models.embedder.embed([text])[0]
                hits = self.retriever.search_with(text, run.vector, self.config.top)
                run.ranked = True
        run.hits = tuple(hits)
        run.emit(Retrieved(run.hits))

    # --- Speculative RAG -------------------------------------------------------------------------

    def _speculative(self, run: Run) -> Answer:
        rounds = Rounds(run, self.models, self.config)
        if not reads_at_once(run, self.config):
            rerank(run, self.models, self.config)
            look_for_hops(run, self.models, self.config)
        if drafts_first(run, self.config):
            rounds.draft()
            rounds.verify(reads_next=reads(steps_of(run, self.config)))
        if rounds.silent:
            return self._abstain(run, rounds)
        repaired = Repaired()
        if run.hits and not rounds.confident:
            repaired = repair(run, rounds, self.models, self.config)
        steps, reading = repaired.steps, repaired.reading
        if reading is not None:
            return self._answer(
                run,
                reading.answer,
                agreeing_rationale(reading, rounds.verdicts),
                reading.confidence,
                reading.decided_by,
                reading.passages,
                rounds.verdicts,
                steps,
            )
        enough = rounds.confident or rounds.trust >= self.config.abstain_below
        if rounds.winner is not None and enough and not repaired.nothing_there:
            return self._from_draft(run, rounds, "speculative", steps)
        return self._abstain(run, rounds, steps)

    # --- Baselines -------------------------------------------------------------------------------

    def _drafter_alone(self, run: Run) -> Answer:
        rerank(run, self.models, self.config)
        rounds = Rounds(run, self.models, self.config)
        rounds.draft()
        rounds.decide()
        if rounds.winner is None:
            return self._abstain(run, rounds)
        return self._from_draft(run, rounds, "drafter")

    def _standard(self, run: Run) -> Answer:
        passages = tuple(h.passage for h in run.hits)
        reader = StandardRAG(self.models.verifier, self.config)
        answer = None
        with run.stage("verify"), run.may_be_cut("reading all passages"):
            text, logprob, usage = reader.answer(
                run.question,
                passages,
                on_text=None if run.budget.limited else _shown(run),
                cancel=run.flag,
            )
            run.add("verifier", usage)
            answer = text
        if answer is None:
            return self._answer(run, OUT_OF_TIME_TEXT, "", 0.0, "abstain", (), ())
        return self._answer(run, answer, "", probability(logprob), "standard", passages, ())

    # --- The answer ------------------------------------------------------------------------------

    def _from_draft(
        self, run: Run, rounds: Rounds, decided_by: DecidedBy, steps: Sequence[Repair] = ()
    ) -> Answer:
        assert rounds.winner is not None
        draft = rounds.winner.draft
        return self._answer(
            run,
            draft.answer,
            draft.rationale,
            rounds.trust,
            decided_by,
            draft.subset.passages,
            rounds.verdicts,
            steps,
        )

    def _abstain(self, run: Run, rounds: Rounds, steps: Sequence[Repair] = ()) -> Answer:
        text = TOO_LONG_TEXT if run.too_long else prompts.ABSTAIN_TEXT
        text = OUT_OF_TIME_TEXT if run.budget.left_out else text
        return self._answer(run, text, "", rounds.trust, "abstain", (), rounds.verdicts, steps)

    def _answer(
        self,
        run: Run,
        text: str,
        rationale: str,
        confidence: float,
        decided_by: DecidedBy,
        passages: Sequence[Passage],
        verdicts: Sequence[Verdict],
        steps: Sequence[Repair] = (),
    ) -> Answer:
        run.say(text)
        with run.stage("cite"):  # that there is no answer needs no evidence
            said = "" if decided_by == "abstain" else text
            cited = cite(rationale, said, passages, run.question.text)
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
            timings=run.timings(),
            usage=run.usage,
            models={role: getattr(self.models, role).name for role in used},
            repairs=tuple(steps),
            skipped=tuple(run.skipped),
            left_out=tuple(run.budget.left_out),
            too_long=tuple(run.too_long),
        )


def _shown(run: Run) -> OnText:
    """Return what shows an answer as far as it is certain, while the verifier writes it."""
    written = ""

    def on_text(prompt: int, stage: int, text: str) -> None:
        nonlocal written
        written += text
        run.say(settled(written, run.question))

    return on_text
