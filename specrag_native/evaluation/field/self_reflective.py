"""Self-reflective RAG: an answer per passage, ranked by what the model says of it.

Law: every answer is written from one passage alone. After Asai et al., "Self-RAG", arXiv
2310.11511, section 3.3: answers are ranked by their probability and their critiques (is the passage
relevant, does it support the answer, is the answer useful). A model without reflection tokens is
asked as yes/no; one that has them is read by its own tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specrag_native import prompts
from specrag_native.answering.baselines import probability
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
from specrag_native.protocol import Engine, GenerateOptions, Prompt, Segment
from specrag_native.types import Answer, Hit, LogprobSpan, Passage, Question, Usage

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

RELEVANT = "Is the passage relevant to the question? (Yes or No)"
SUPPORTED = "Does the passage support the answer? (Yes or No)"
USEFUL = "Is the answer a useful answer to the question? (Yes or No)"

RELEVANCE_TOKENS = ("[Relevant]", "[Irrelevant]")
SUPPORT_TOKENS = ("[Fully supported]", "[Partially supported]", "[No support / Contradictory]")
UTILITY_TOKENS = tuple(f"[Utility:{i}]" for i in range(1, 6))


@dataclass(frozen=True, slots=True)
class Weights:
    """What each critique counts for; those of the paper."""

    relevance: float = 1.0
    support: float = 1.0
    utility: float = 0.5


@dataclass(frozen=True, slots=True)
class _Critique:
    relevance: float
    support: float
    utility: float


class SelfReflectiveRAG:
    """One answer per passage; the one with the best critiques wins.

    Args:
        engine: the model.
        config: for the length of answers.
        search: finds passages, where none are given.
        reflection_tokens: whether the model was trained to write reflection tokens.
        weights: what each critique counts for.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        search: Search | None = None,
        *,
        reflection_tokens: bool = False,
        weights: Weights = Weights(),
    ) -> None:
        self._engine, self._config, self._search = engine, config, search
        self._reflection_tokens = reflection_tokens
        self._weights = weights

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
            answers, usage = self._answers(question, passages)
            answer_s = time.perf_counter() - begin - retrieve_s
            if self._reflection_tokens:
                critiques, more = self._critiques_by_tokens(question, passages, answers)
            else:
                critiques, more = self._critiques_by_asking(question, passages, answers)
        except ContextFullError as error:
            raise too_long(error) from None
        total = time.perf_counter() - begin
        best = max(
            range(len(passages)),
            key=lambda i: self._score(answers[i][1], critiques[i]),
            default=None,
        )
        return finished(
            question,
            "" if best is None else answers[best][0],
            0.0 if best is None else critiques[best].support,
            timings={
                "retrieve": retrieve_s,
                "draft": answer_s,
                "verify": total - answer_s - retrieve_s,
                "total": total,
            },
            usage=usage + more,
            model=self._engine.name,
        )

    def _score(self, logprob: LogprobSpan, critique: _Critique) -> float:
        w = self._weights
        return (
            probability(logprob)
            + w.relevance * critique.relevance
            + w.support * critique.support
            + w.utility * critique.utility
        )

    def _answers(
        self, question: Question, passages: Sequence[Passage]
    ) -> tuple[list[tuple[str, LogprobSpan]], Usage]:
        if not passages:
            return [], Usage()
        options = GenerateOptions(
            stages=prompts.standard_stages(max_answer_tokens=self._config.max_answer_tokens)
        )
        make = self._token_prompt if self._reflection_tokens else self._chat_prompt
        batch = self._engine.generate([make(question, p) for p in passages], options)
        out = []
        for generation in batch:
            completion = generation.completions[0]
            out.append((prompts.read_answer(completion.text, question), completion.logprob))
        return out, batch.usage

    def _chat_prompt(self, question: Question, passage: Passage) -> Prompt:
        return prompts.standard_prompt(self._engine, question, [passage])

    def _critiques_by_asking(
        self,
        question: Question,
        passages: Sequence[Passage],
        answers: Sequence[tuple[str, LogprobSpan]],
    ) -> tuple[list[_Critique], Usage]:
        ask = prompts.question_text(question)
        texts: list[str] = []
        for passage, (answer, _) in zip(passages, answers, strict=True):
            evidence = f"{passage_text(passage)}\n\n{ask}"
            texts.append(f"{evidence}\n\n{RELEVANT}")
            texts.append(f"{evidence}\nAnswer: {answer}\n\n{SUPPORTED}")
            texts.append(f"{ask}\nAnswer: {answer}\n\n{USEFUL}")
        said, usage = yes_no(self._engine, texts)
        return [_Critique(*said[i : i + 3]) for i in range(0, len(said), 3)], usage

    # --- A model with reflection tokens ----------------------------------------------------------

    def _token_prompt(self, question: Question, passage: Passage) -> Prompt:
        """Return the prompt such a model was trained on, up to where its answer begins."""
        return (
            Segment("### Instruction:\n", control=True),
            Segment(prompts.question_text(question)),
            Segment("\n\n### Response:\n[Retrieval]<paragraph>", control=True),
            Segment(passage_text(passage)),
            Segment("</paragraph>[Relevant]", control=True),
        )

    def _critiques_by_tokens(
        self,
        question: Question,
        passages: Sequence[Passage],
        answers: Sequence[tuple[str, LogprobSpan]],
    ) -> tuple[list[_Critique], Usage]:
        groups: list[Prompt] = []
        for passage, (answer, _) in zip(passages, answers, strict=True):
            before = self._token_prompt(question, passage)[:-1]
            evidence = (*before, Segment("</paragraph>", control=True))
            written = (*evidence, Segment(RELEVANCE_TOKENS[0], control=True), Segment(answer))
            supported = (*written, Segment(SUPPORT_TOKENS[0], control=True))
            for start, tokens in (
                (evidence, RELEVANCE_TOKENS),
                (written, SUPPORT_TOKENS),
                (supported, UTILITY_TOKENS),
            ):
                groups += [(*start, Segment(t, scored=True, control=True)) for t in tokens]
        if not groups:
            return [], Usage()
        batch = self._engine.score(groups)
        found = iter(math.exp(s.segments[0].logprob.logprob_sum) for s in batch)
        out = []
        for _ in passages:
            relevant, irrelevant = (next(found) for _ in RELEVANCE_TOKENS)
            full, partial, none = (next(found) for _ in SUPPORT_TOKENS)
            utility = [next(found) for _ in UTILITY_TOKENS]
            out.append(
                _Critique(
                    relevance=_share(relevant, relevant + irrelevant),
                    support=_share(full + 0.5 * partial, full + partial + none),
                    utility=_share(
                        sum(
                            w * p for w, p in zip((-1.0, -0.5, 0.0, 0.5, 1.0), utility, strict=True)
                        ),
                        sum(utility),
                    ),
                )
            )
        return out, batch.usage


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
