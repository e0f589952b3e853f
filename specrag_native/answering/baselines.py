"""What Speculative RAG is measured against, on the same engine and with the same prompts.

Law: a baseline gets the best settings we know for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from specrag_native import prompts
from specrag_native.config import Config
from specrag_native.errors import Cancelled
from specrag_native.protocol import CancelFlag, Engine, GenerateOptions, OnText
from specrag_native.types import LogprobSpan, Passage, Question, Usage


class StandardRAG:
    """One model reads all passages and answers.

    ``may_abstain`` allows it to say that the passages do not hold the answer.
    """

    def __init__(self, engine: Engine, config: Config, *, may_abstain: bool = False) -> None:
        self._engine = engine
        self._may_abstain = may_abstain
        self._options = GenerateOptions(
            stages=prompts.standard_stages(max_answer_tokens=config.max_answer_tokens)
        )

    def answer(
        self,
        question: Question,
        passages: Sequence[Passage],
        *,
        keeps_first: bool = True,
        on_text: OnText | None = None,
        cancel: CancelFlag | None = None,
    ) -> tuple[str, LogprobSpan, Usage]:
        """Return the answer, its log-probability and what it cost.

        ``keeps_first``: whether the engine may keep the first passage for other questions.

        Raises:
            ContextFullError: the passages do not fit the model's context.
            Cancelled: the call was cancelled.
        """
        batch = self._engine.generate(
            [
                prompts.standard_prompt(
                    self._engine,
                    question,
                    passages,
                    may_abstain=self._may_abstain,
                    standalone=int(keeps_first),
                )
            ],
            self._options,
            on_text=on_text,
            cancel=cancel,
        )
        if batch[0].finish_reason == "cancelled":
            raise Cancelled("cancelled while answering")
        completion = batch[0].completions[0]
        return prompts.read_answer(completion.text, question), completion.logprob, batch.usage


def probability(span: LogprobSpan) -> float:
    """Return the mean probability per token, 0..1; 0 for an empty answer."""
    return math.exp(span.logprob_mean) if span.n_tokens else 0.0
