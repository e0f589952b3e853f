"""How far a draft can be trusted, 0..1.

Law: what its own passages do not support is not trusted, whatever the models say of it.

With weights, which are fitted on questions with known answers and kept with a pair of models, the
confidence is calibrated: of the answers given with confidence 0.8, about 8 in 10 are right.
Without, it is the verifier's belief alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from specrag_native.citations import cite
from specrag_native.types import Draft, Verdict
from specrag_native.verifier import answer_key

FEATURES = ("one", "log_odds_yes", "answer_logprob", "self_containment", "agreement", "known")
"""What the weights are for: a constant; the verifier's log-odds of yes; the mean log-probability
per token of the answer (drafter) and of answer and rationale (verifier); the share of the drafts
with an answer that give this one; the share of all drafts that give an answer."""

Weights = tuple[float, ...]
_LIMIT = 6.0
"""Largest log-odds that count; beyond, the verifier's belief is one of its habits."""


def features(verdict: Verdict, verdicts: Sequence[Verdict]) -> Weights | None:
    """Return the features of a verified verdict among all, or ``None`` for an unverified one."""
    contained = verdict.contained
    if verdict.support is None or contained is None:
        return None
    yes = min(max(verdict.support, 1e-9), 1 - 1e-9)
    drafts = [v.draft for v in verdicts]
    known = [d for d in drafts if not d.unknown]
    same = sum(answer_key(d.answer) == answer_key(verdict.draft.answer) for d in known)
    return (
        1.0,
        max(-_LIMIT, min(_LIMIT, math.log(yes / (1 - yes)))),
        max(-_LIMIT, verdict.draft.answer_logprob.logprob_mean),
        max(-_LIMIT, contained.logprob_mean),
        same / max(1, len(known)),
        len(known) / max(1, len(drafts)),
    )


def confidence(verdict: Verdict, verdicts: Sequence[Verdict] = (), weights: Weights = ()) -> float:
    """Return the confidence in a draft.

    The share of its words that its own passages support, times the calibrated probability that it
    is right; without weights or verification, times the verifier's P(yes) / (P(yes) + P(no)), or
    the drafter's own mean probability of the answer when it was not verified.
    """
    found = features(verdict, verdicts) if weights else None
    if found is not None:
        score = sum(w * x for w, x in zip(weights, found, strict=True))
        believed = 1 / (1 + math.exp(-max(-50.0, min(50.0, score))))
    elif verdict.support is not None:
        believed = verdict.support
    else:
        believed = math.exp(min(0.0, verdict.draft.answer_logprob.logprob_mean))
    return believed * supported(verdict.draft)


def supported(draft: Draft) -> float:
    """Return the share, 0..1, of a draft's words in sentences that its passages support."""
    said = f"{draft.rationale.rstrip('.')}. {draft.answer}" if draft.rationale else draft.answer
    return cite(said, draft.answer, draft.subset.passages).support
