"""What happens when no draft is good enough: the verifier reads passages itself, few before many.

Law: repair never costs more than standard RAG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specrag_native.baselines import StandardRAG, probability
from specrag_native.config import Config
from specrag_native.protocol import CancelFlag, Engine
from specrag_native.types import DecidedBy, Hit, Passage, Question, Usage, Verdict


@dataclass(frozen=True, slots=True)
class Repaired:
    """An answer the verifier read from passages itself."""

    answer: str
    confidence: float
    decided_by: DecidedBy
    passages: tuple[Passage, ...]
    usage: Usage


def best_evidence(verdicts: Sequence[Verdict]) -> tuple[Passage, ...]:
    """Return the passages of the most promising draft.

    Verified drafts come first, by total; then known ones by their own score; then the rest.
    """

    def promise(v: Verdict) -> tuple[bool, bool, float]:
        return v.verified, not v.draft.unknown, v.scores.total if v.verified else v.scores.draft

    return max(verdicts, key=promise).draft.subset.passages if verdicts else ()


def read_passages(
    engine: Engine,
    config: Config,
    question: Question,
    verdicts: Sequence[Verdict],
    hits: Sequence[Hit],
    *,
    cancel: CancelFlag | None = None,
) -> Repaired:
    """Let the verifier answer from the best draft's passages, or from all (``config.repair``)."""
    passages = best_evidence(verdicts) if config.repair == "subset" else ()
    decided_by: DecidedBy = "repair"
    if not passages:
        passages, decided_by = tuple(h.passage for h in hits), "standard"
    text, logprob, usage = StandardRAG(engine, config).answer(question, passages, cancel=cancel)
    return Repaired(text, probability(logprob), decided_by, passages, usage)
