"""What happens when no draft is good enough: the verifier reads passages itself, few before many.

Law: repair never costs more than standard RAG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from specrag_native import prompts
from specrag_native.baselines import StandardRAG, probability
from specrag_native.budget import Budget, tokens_in
from specrag_native.config import Config
from specrag_native.protocol import CancelFlag, Engine
from specrag_native.types import DecidedBy, Hit, Passage, Question, Usage, Verdict


@dataclass(frozen=True, slots=True)
class Repaired:
    """An answer the verifier read from passages itself; empty when they do not hold one.

    ``finished`` is False when a budget left steps out, so that nothing is known of what they hold.
    """

    answer: str
    confidence: float
    decided_by: DecidedBy
    passages: tuple[Passage, ...]
    usage: Usage
    finished: bool = True


def best_evidence(verdicts: Sequence[Verdict]) -> tuple[Passage, ...]:
    """Return the passages of the most promising draft.

    Verified drafts come first, by total; then known ones by their own score; then the rest.
    """

    def promise(v: Verdict) -> tuple[bool, bool, float]:
        return v.verified, not v.draft.unknown, v.scores.total if v.verified else v.scores.draft

    return max(verdicts, key=promise).draft.subset.passages if verdicts else ()


def steps(
    config: Config, verdicts: Sequence[Verdict], hits: Sequence[Hit]
) -> list[tuple[DecidedBy, tuple[Passage, ...]]]:
    """Return what the verifier reads, one step after another until it finds an answer.

    First the passages of the most promising draft with the best hit, then (``repair="all"``) the
    others behind them, so that the second step computes only what the first did not.
    """
    ranked = tuple(h.passage for h in hits)
    chosen = {p.id for p in (*best_evidence(verdicts), *ranked[:1])}
    few = tuple(p for p in ranked if p.id in chosen)
    out: list[tuple[DecidedBy, tuple[Passage, ...]]] = [("repair", few)]
    if config.repair == "all" and len(few) < len(ranked):
        out.append(("standard", (*few, *(p for p in ranked if p.id not in chosen))))
    return out


def read_passages(
    engine: Engine,
    config: Config,
    question: Question,
    verdicts: Sequence[Verdict],
    hits: Sequence[Hit],
    *,
    budget: Budget,
    cancel: CancelFlag | None = None,
) -> Repaired:
    """Let the verifier answer from few passages, and from all when those do not hold the answer.

    The answer is empty when the passages read do not hold one.
    """
    reader = StandardRAG(engine, config, may_abstain=True)
    usage = Usage()
    read = 0.0
    for decided_by, passages in steps(config, verdicts, hits):
        tokens = tokens_in(*(p.text for p in passages))
        if not budget.fits("verifier", tokens - read):
            budget.leave_out("repair" if not read else "reading all passages")
            return Repaired("", 0.0, "abstain", (), usage, finished=False)
        read = tokens
        text, logprob, spent = reader.answer(question, passages, cancel=cancel)
        usage += spent
        if not prompts.is_unknown(text):
            return Repaired(text, probability(logprob), decided_by, passages, usage)
    return Repaired("", 0.0, "abstain", (), usage)
