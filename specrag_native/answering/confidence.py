"""How far a draft, or an answer that the verifier read itself, can be trusted, 0..1.

Law: a draft that its own passages do not support is not trusted, whatever the models say of it.

With weights, which are fitted on questions with known answers and kept with a pair of models, the
confidence is calibrated: of the answers given with confidence 0.8, about 8 in 10 are right.
Without, it is the verifier's belief alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from specrag_native.answering.citations import cite
from specrag_native.answering.grounding import is_judgement
from specrag_native.answering.verifier import answer_key
from specrag_native.types import Draft, Verdict

FEATURES = (
    *("one", "log_odds_yes", "answer_logprob", "self_containment", "agreement", "known"),
    "unknown_logprob",
)
"""What the weights are for: a constant; the verifier's log-odds of yes; the mean log-probability
per token of the answer (drafter) and of answer and rationale (verifier); the share of the drafts
with an answer that give this one; the share of all drafts that give an answer; the
log-probability with which the drafter would have said "unknown" here."""

READING_FEATURES = ("one", "log_odds", "agreement", "unknown_logprob", "whole", "undrafted")
"""The same for an answer that the verifier read itself: a constant; the log-odds of its mean
probability per token; whether a draft gives the same answer; the lowest log-probability with which
the drafter would have said "unknown", of any draft; whether all passages were read; whether nothing
had been drafted by then."""

DRAFT_FEATURES = ("one", "log_odds_known", "answer_logprob", "agreement", "unrivalled")
"""The same for a draft that the verifier did not judge: a constant; the log-odds that the drafter
would not have said "unknown" here; the log-probability of its answer, all tokens together; whether
a draft of another subset gives the same answer, if that names something: two that say "no" agree
by chance; 1 less the probability of the likeliest draft of another subset with another answer.
Fewer weights are those of the first ones."""

Weights = tuple[float, ...]
_LIMIT = 6.0
"""Largest log-odds that count; beyond, the verifier's belief is one of its habits."""


def features(verdict: Verdict, verdicts: Sequence[Verdict]) -> Weights | None:
    """Return the features of a verified verdict among all, or ``None`` for an unverified one."""
    contained = verdict.contained
    if verdict.support is None or contained is None:
        return None
    log_odds = _log_odds(verdict.support)
    logprob = max(-_LIMIT, min(0.0, contained.logprob_mean))
    return _features(verdict.draft, [v.draft for v in verdicts], log_odds, logprob)


def _features(draft: Draft, drafts: Sequence[Draft], log_odds: float, contained: float) -> Weights:
    """Return the features, of which only the two named ones need the verifier."""
    known = [d for d in drafts if not d.unknown]
    same = sum(answer_key(d.answer) == answer_key(draft.answer) for d in known)
    return (
        1.0,
        log_odds,
        max(-_LIMIT, draft.answer_logprob.logprob_mean),
        contained,
        same / max(1, len(known)),
        len(known) / max(1, len(drafts)),
        _unknown_logprob(draft),
    )


def _unknown_logprob(draft: Draft) -> float:
    return -_LIMIT if draft.unknown_logprob is None else max(-_LIMIT, draft.unknown_logprob)


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-9)
    return max(-_LIMIT, min(_LIMIT, math.log(p / (1 - p))))


def reading_features(
    answer: str, probability: float, drafts: Sequence[Draft], *, whole: bool
) -> Weights:
    """Return the features of an answer that the verifier read itself.

    Args:
        answer: what it answered.
        probability: the mean probability per token of that.
        drafts: all drafts of the question.
        whole: whether it read all passages.
    """
    agrees = any(answer_key(d.answer) == answer_key(answer) for d in drafts if not d.unknown)
    none = min((_unknown_logprob(d) for d in drafts), default=0.0)
    return 1.0, _log_odds(probability), float(agrees), none, float(whole), float(not drafts)


def reading_confidence(
    answer: str,
    probability: float,
    drafts: Sequence[Draft],
    weights: Weights = (),
    *,
    whole: bool,
) -> float:
    """Return the confidence in an answer that the verifier read itself.

    The calibrated probability that it is right; without weights its mean probability per token.
    """
    if not weights:
        return probability
    return _probability(weights, reading_features(answer, probability, drafts, whole=whole))


def _probability(weights: Weights, found: Weights) -> float:
    return logistic(sum(w * x for w, x in zip(weights, found, strict=True)))


def draft_features(draft: Draft, drafts: Sequence[Draft]) -> Weights:
    """Return the features of a draft that the verifier did not judge, among all drafts."""
    key = answer_key(draft.answer)
    others = [d for d in _of_others(draft, drafts) if answer_key(d.answer) != key]
    return (
        1.0,
        -_log_odds(math.exp(_unknown_logprob(draft))),
        _answer_logprob(draft),
        float(borne_out(draft, drafts)),
        1.0 - max((math.exp(min(0.0, _answer_logprob(d))) for d in others), default=0.0),
    )


def borne_out(draft: Draft, drafts: Sequence[Draft]) -> bool:
    """Return whether a draft of another subset gives the same answer, and that names something."""
    key = answer_key(draft.answer)
    same = (answer_key(d.answer) == key for d in _of_others(draft, drafts))
    return not is_judgement(draft.answer) and any(same)


def _of_others(draft: Draft, drafts: Sequence[Draft]) -> list[Draft]:
    """Return the drafts of other subsets that have an answer.

    Subsets that are not known, as of stored drafts, are taken for different ones.
    """
    own = draft.subset.ids
    known = (d for d in drafts if not d.unknown and d is not draft)
    return [d for d in known if not own or d.subset.ids != own]


def _answer_logprob(draft: Draft) -> float:
    return max(-_LIMIT, draft.answer_logprob.logprob_sum)


def draft_confidence(draft: Draft, drafts: Sequence[Draft], weights: Weights) -> float:
    """Return the confidence in a draft that the verifier did not judge, among all drafts.

    The calibrated probability that it is right, times the share of its words that its own passages
    support.
    """
    return draft_probability(draft, drafts, weights) * supported(draft)


def draft_probability(draft: Draft, drafts: Sequence[Draft], weights: Weights) -> float:
    """Return the same without regard to what its passages support."""
    return _probability(weights, draft_features(draft, drafts)[: len(weights)])


def logistic(score: float) -> float:
    """Return the probability of which a score is the log-odds."""
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, score))))


def ceiling(draft: Draft, drafts: Sequence[Draft], weights: Weights) -> float:
    """Return the largest confidence that verification could give a draft among all drafts.

    Every feature of the verifier is taken at that end of its range which its weight favours;
    without weights that is certainty.
    """
    if not weights:
        return supported(draft)
    log_odds = _LIMIT if weights[1] > 0 else -_LIMIT
    contained = 0.0 if weights[3] > 0 else -_LIMIT
    best = _features(draft, drafts, log_odds, contained)
    return _probability(weights, best) * supported(draft)


def confidence(verdict: Verdict, verdicts: Sequence[Verdict] = (), weights: Weights = ()) -> float:
    """Return the confidence in a draft.

    The share of its words that its own passages support, times the calibrated probability that it
    is right; without weights or verification, times the verifier's P(yes) / (P(yes) + P(no)), or
    the drafter's own mean probability of the answer when it was not verified, which with weights
    counts for no more than verification could have made of it.
    """
    found = features(verdict, verdicts) if weights else None
    if found is not None:
        return _probability(weights, found) * supported(verdict.draft)
    if verdict.support is not None:
        return verdict.support * supported(verdict.draft)
    believed = math.exp(min(0.0, verdict.draft.answer_logprob.logprob_mean))
    trust = believed * supported(verdict.draft)
    if not weights:
        return trust
    return min(trust, ceiling(verdict.draft, [v.draft for v in verdicts], weights))


def supported(draft: Draft) -> float:
    """Return the share, 0..1, of a draft's words in sentences that its passages support."""
    said = f"{draft.rationale.rstrip('.')}. {draft.answer}" if draft.rationale else draft.answer
    return cite(said, draft.answer, draft.subset.passages).support
