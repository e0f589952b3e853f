"""What other thresholds would have answered and cost, from runs in which every step was taken.

Law: a policy is judged by what it would have done with what was written; nothing is guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A step of repair. ``found``: it gave an answer that stands in what was read."""

    name: str
    found: bool
    right: float
    confidence: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Trace:
    """One question with all that was tried.

    ``baseline``: how right standard RAG is. ``tokens`` are the verifier's, computed and written:
    here those of verification.
    """

    draft_confidence: float
    draft_right: float
    tokens: int
    steps: tuple[Step, ...]
    baseline: float


@dataclass(frozen=True, slots=True)
class Policy:
    """When a draft is accepted, and if none is, which steps are taken and when one is accepted.

    The fields mean what the settings of these names do. With ``repair_below`` 1 no draft is
    accepted, so none is verified.
    """

    repair: tuple[str, ...]
    repair_below: float
    accept_above: float


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
        if policy.repair_below < 1.0:
            tokens += trace.tokens
            if trace.draft_confidence >= policy.repair_below:
                accepted += 1
                right += trace.draft_right
                continue
        answer = None
        for step in trace.steps:
            if step.name not in policy.repair:
                continue
            tokens += step.tokens
            answer = step if step.found else None  # the last word counts
            if answer is not None and answer.confidence >= policy.accept_above:
                break
        abstained += answer is None
        right += answer.right if answer is not None else 0.0
    n = max(1, len(traces))
    return Outcome(right / n, tokens / n, accepted / n, abstained / n)


def policies(traces: Sequence[Trace], orders: Iterable[tuple[str, ...]]) -> list[Policy]:
    """Return every policy that differs from the others on some question."""
    drafts = {_down(t.draft_confidence) for t in traces}
    steps = {_down(s.confidence) for t in traces for s in t.steps if s.found}
    return [
        Policy(order, below, above)
        for order, below, above in itertools.product(
            orders, sorted(drafts | {1.0}), sorted(steps | {0.0, 1.0})
        )
    ]


def _down(confidence: float) -> float:
    """Return a confidence as a threshold will be written, not above it."""
    return int(confidence * 1e3) / 1e3


def cheapest(
    traces: Sequence[Trace], candidates: Iterable[Policy], *, least: float
) -> tuple[Policy, Outcome] | None:
    """Return the policy with the fewest tokens among those at least as right as ``least``.

    Of equally cheap ones the most accurate. ``None`` when there is none.
    """
    found = [(p, replay(p, traces)) for p in candidates]
    good = [(p, o) for p, o in found if o.right >= least - 1e-9]
    return min(good, key=lambda po: (po[1].tokens, -po[1].right), default=None)
