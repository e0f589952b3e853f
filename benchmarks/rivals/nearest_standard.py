"""Standard RAG that reads only the two passages whose vectors are nearest to the question's.

What reading less is worth by itself, without a drafter that says which passages to read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rivals.shared import Retrieving, answered
from specrag_native.answering.baselines import StandardRAG
from specrag_native.config import Config
from specrag_native.protocol import Engine
from specrag_native.types import Answer, Hit, Question

NEAREST = 2
METHOD = "benchmarks/rivals/nearest_standard.py:standard_nearest"
"""What `specrag eval --method` calls it from the project's root: results are kept under it."""


class NearestStandardRAG:
    """An engine that answers from the passages most similar to the question."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._reader = StandardRAG(engine, config)

    def answer(
        self, question: Question, *, hits: Sequence[Hit] | None, question_vector: Any = None
    ) -> Answer:
        """Answer one question; the passages and the question come with their vectors."""
        begin = time.perf_counter()
        nearest = sorted(hits or (), key=lambda h: -float(h.vector @ question_vector))[:NEAREST]
        text, _, usage = self._reader.answer(question, [h.passage for h in nearest])
        return answered(question, text, begin=begin, usage={"verifier": usage})


def standard_nearest(session: Any, config: Config) -> Retrieving:
    """Return the method for ``specrag eval --method FILE.py:standard_nearest``."""
    rival = NearestStandardRAG(session.models.verifier, config)
    return Retrieving(rival, session, config)
