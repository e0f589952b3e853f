"""Standard RAG whose passages do not see each other, so that each can be kept for later questions.

What a cache of passages does for standard RAG itself: the verifier was not trained to read so, and
its answers are not those of standard RAG.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rivals.shared import Retrieving, answered, read
from specrag_native import prompts
from specrag_native.config import Config
from specrag_native.engine import NativeEngine
from specrag_native.protocol import GenerateOptions
from specrag_native.types import Answer, Hit, Question


class CachedStandardRAG:
    """An engine that keeps passages, and answers from all that a question brings."""

    def __init__(self, engine: NativeEngine, config: Config) -> None:
        self._engine = engine
        self._options = GenerateOptions(
            stages=prompts.standard_stages(max_answer_tokens=config.max_answer_tokens)
        )

    def answer(
        self, question: Question, *, hits: Sequence[Hit] | None, question_vector: Any = None
    ) -> Answer:
        """Answer one question from the given passages."""
        begin = time.perf_counter()
        passages = [h.passage for h in hits or ()]
        asked = prompts.standard_prompt(
            self._engine, question, passages, standalone=max(1, len(passages))
        )
        done = self._engine.generate([asked], self._options)
        return answered(
            question,
            read(done[0].completions[0].text, question),
            begin=begin,
            usage={"verifier": done.usage},
        )


def standard_cached(session: Any, config: Config) -> Retrieving:
    """Return the method for ``specrag eval --method FILE.py:standard_cached``."""
    rival = CachedStandardRAG(session.models.verifier, config)
    return Retrieving(rival, session, config)
