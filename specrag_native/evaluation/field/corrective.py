"""Corrective RAG without training: passages are graded, cut into strips, filtered, then read.

Law: what was graded wrong is never read. After Yan et al., "Corrective Retrieval Augmented
Generation", arXiv 2401.15884: its fine-tuned evaluator is replaced by the verifier's yes/no
log-probability, and where all passages are wrong there is no web search: the model answers alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specrag_native import prompts
from specrag_native.answering.baselines import StandardRAG, probability
from specrag_native.config import Config
from specrag_native.errors import ContextFullError
from specrag_native.evaluation.field.asking import (
    Search,
    finished,
    passage_text,
    passages_for,
    too_long,
    yes_no,
)
from specrag_native.protocol import Engine
from specrag_native.sentences import sentence_spans
from specrag_native.types import Answer, Hit, Passage, Question, Usage

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

GRADE = "Does the passage help to answer the question? (Yes or No)"


@dataclass(frozen=True, slots=True)
class CorrectiveOptions:
    """Thresholds of the grades, in 0..1, and the size of strips."""

    right_from: float = 0.6
    """A passage graded so or higher is right; one right passage and ambiguous ones are dropped."""
    wrong_below: float = 0.2
    """A passage or strip graded lower is wrong."""
    sentences_per_strip: int = 2
    """Length of a strip, sentences."""
    max_strips: int = 8
    """Strips read at most, the best graded."""


class CorrectiveRAG:
    """Grades passages and strips with the model, then answers from what is left."""

    def __init__(
        self,
        engine: Engine,
        config: Config,
        search: Search | None = None,
        options: CorrectiveOptions = CorrectiveOptions(),
    ) -> None:
        self._engine, self._config, self._search = engine, config, search
        self._options = options

    def answer(
        self,
        question: Question,
        *,
        hits: Sequence[Hit] | None,
        question_vector: FloatArray | None = None,
    ) -> Answer:
        """Answer one question.

        Raises:
            QuestionError: a passage does not fit the model's context.
        """
        begin = time.perf_counter()
        passages, retrieve_s = passages_for(question, hits, self._search)
        try:
            kept, usage = self._correct(question, passages)
            grade_s = time.perf_counter() - begin - retrieve_s
            text, logprob, answering = StandardRAG(self._engine, self._config).answer(
                question, kept
            )
        except ContextFullError as error:
            raise too_long(error) from None
        total = time.perf_counter() - begin
        return finished(
            question,
            text,
            probability(logprob),
            timings={
                "retrieve": retrieve_s,
                "grade": grade_s,
                "verify": total - grade_s - retrieve_s,
                "total": total,
            },
            usage=usage + answering,
            model=self._engine.name,
        )

    def _correct(
        self, question: Question, passages: Sequence[Passage]
    ) -> tuple[list[Passage], Usage]:
        options = self._options
        grades, usage = self._grade(question, passages)
        kept = [p for p, g in zip(passages, grades, strict=True) if g >= options.right_from]
        if not kept:
            kept = [p for p, g in zip(passages, grades, strict=True) if g >= options.wrong_below]
        strips = [s for p in kept for s in strips_of(p, options.sentences_per_strip)]
        grades, more = self._grade(question, strips)
        order = sorted(range(len(strips)), key=lambda i: -grades[i])
        best = [i for i in order if grades[i] >= options.wrong_below][: options.max_strips]
        return [strips[i] for i in sorted(best)], usage + more

    def _grade(self, question: Question, passages: Sequence[Passage]) -> tuple[list[float], Usage]:
        ask = prompts.question_text(question)
        return yes_no(self._engine, [f"{passage_text(p)}\n\n{ask}\n\n{GRADE}" for p in passages])


def strips_of(passage: Passage, sentences: int) -> list[Passage]:
    """Cut a passage into strips of so many sentences; a strip keeps its passage's title."""
    spans = sentence_spans(passage.text)
    out = []
    for i in range(0, len(spans), sentences):
        start, end = spans[i][0], spans[min(i + sentences, len(spans)) - 1][1]
        out.append(
            Passage(
                id=f"{passage.id}#{start}",
                document=passage.document,
                title=passage.title,
                text=passage.text[start:end],
                start=passage.start + start,
                end=passage.start + end,
            )
        )
    return out
