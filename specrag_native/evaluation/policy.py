"""What other thresholds would have answered and cost, from runs in which every step was taken.

Law: a policy is judged by what it would have done with what was written; nothing is guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A step of repair. ``found``: it gave an answer that stands in what was read.

    ``probability``: of that answer, mean per token. ``confidence``: that it is right.
    """

    name: str
    found: bool
    right: float
    probability: float
    confidence: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """One question with all that was tried.

    ``draft_confidence``: ``None`` where no draft had an answer. ``baseline``: how right standard
    RAG is. ``tokens`` are the verifier's, computed and written: here those of verification.
    """

    draft_confidence: float | None
    draft_right: float
    tokens: int
    steps: tuple[Step, ...]
    baseline: float


@dataclass(frozen=True, slots=True)
class Policy:
    """When a draft is accepted, and if none is, which steps are taken and when one is accepted.

    The fields mean what the settings of these names do. Drafts are verified in any case.
    """

    repair: tuple[str, ...]
    repair_below: float
    accept_above: float
    abstain_below: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Means over questions: how right, the verifier's tokens, drafts accepted, no answer given."""

    right: float
    tokens: float
    accepted: float
    abstained: float


def replay(policy: Policy, traces: Sequence[Trace]) -> Outcome:
    """Return what a policy would have come to."""
    right = tokens = 0.0
    accepted = abstained = 0
    for trace in traces:
        tokens += trace.tokens
        if trace.draft_confidence is not None and trace.draft_confidence >= policy.repair_below:
            accepted += 1
            right += trace.draft_right
            continue
        answer = None
        for step in trace.steps:
            if step.name not in policy.repair:
                continue
            tokens += step.tokens
            taken = step.found and step.confidence >= policy.abstain_below
            answer = step if taken else None  # the last word counts
            enough = step.name == "more" or step.probability >= policy.accept_above
            if taken and enough:
                break
        abstained += answer is None
        right += answer.right if answer is not None else 0.0
    n = max(1, len(traces))
    return Outcome(right / n, tokens / n, accepted / n, abstained / n)


def policies(
    traces: Sequence[Trace], orders: Iterable[tuple[str, ...]], *, abstain_below: float = 0.0
) -> list[Policy]:
    """Return policies with thresholds between the confidences, or probabilities, of questions."""
    drafts = {_down(t.draft_confidence) for t in traces if t.draft_confidence is not None}
    steps = {_down(s.probability) for t in traces for s in t.steps if s.found}
    return [
        Policy(order, below, above, abstain_below)
        for order, below, above in itertools.product(
            orders, sorted(drafts | {1.0}), sorted(steps | {0.0, 1.0})
        )
    ]


def _down(probability: float) -> float:
    """Return a probability as a threshold will be written: two places, not above it."""
    return int(probability * 100) / 100


def cheapest(
    traces: Sequence[Trace], candidates: Iterable[Policy], *, least: float
) -> tuple[Policy, Outcome] | None:
    """Return the policy with the fewest tokens among those at least as right as ``least``.

    Of equally cheap ones the most accurate. ``None`` when there is none.
    """
    found = [(p, replay(p, traces)) for p in candidates]
    good = [(p, o) for p, o in found if o.right >= least - 1e-9]
    return min(good, key=lambda po: (po[1].tokens, -po[1].right), default=None)
