"""Many records in one line: accuracy, cost, and how far the confidence can be believed.

Law: every figure is a plain mean over questions unless its name says otherwise, and a figure that
cannot be computed is ``None``, never 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specrag_native.evaluation.intervals import Interval, bootstrap_mean
from specrag_native.evaluation.offline import any_right
from specrag_native.evaluation.records import Record
from specrag_native.types import Usage

N_BINS = 10
"""Bins of the expected calibration error, equally wide."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of similar confidence: how sure they were, and how many were right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one method on one set.

    ``accuracy_answered``: among questions not abstained on. ``oracle``: share with a right draft.
    ``verified``: share of drafts the verifier read. ``aurc``: area under the risk-coverage curve of
    the confidence, over answers given (lower is better). ``ece``: expected calibration error, over
    the same. Seconds are per question, over the ``n_timed`` measured on one machine; ``tokens`` are
    means per question and role.
    """

    n: int
    n_errors: int
    n_timed: int
    accuracy: Interval
    exact: float
    f1: float
    words: float
    abstained: float
    accuracy_answered: float | None
    oracle: float | None
    drafts: float | None
    verified: float | None
    aurc: float | None
    ece: float | None
    seconds_median: float | None
    seconds_p90: float | None
    stages: Mapping[str, float]
    tokens: Mapping[str, Usage]


def summarise(records: Sequence[Record], *, place: str | None = None) -> Summary:
    """Return the figures of some records (at least one).

    ``place``: the machine whose seconds count; ``None``: any.
    """
    n = len(records)
    answered = [r for r in records if not r.abstained]
    drafted = [r for r in records if r.drafts]
    n_drafts = sum(len(r.drafts) for r in drafted)
    timed = [
        r for r in records if "total" in r.timings and not r.derived and place in (None, r.machine)
    ]
    seconds = sorted(r.timings["total"] for r in timed)
    return Summary(
        n=n,
        n_errors=sum(r.error is not None for r in records),
        n_timed=len(timed),
        accuracy=bootstrap_mean([r.grade.right for r in records]),
        exact=_mean([r.grade.exact for r in records]),
        f1=_mean([r.grade.f1 for r in records]),
        words=_mean([r.grade.words for r in answered]) if answered else 0.0,
        abstained=_mean([r.abstained for r in records]),
        accuracy_answered=_mean([r.grade.right for r in answered]) if answered else None,
        oracle=sum(any_right(r.drafts) for r in drafted) / n if drafted else None,
        drafts=n_drafts / len(drafted) if drafted else None,
        verified=(
            sum(d.verified for r in drafted for d in r.drafts) / n_drafts if n_drafts else None
        ),
        aurc=aurc([(r.confidence, r.grade.right) for r in answered]) if answered else None,
        ece=ece([(r.confidence, r.grade.right) for r in answered]) if answered else None,
        seconds_median=statistics.median(seconds) if seconds else None,
        seconds_p90=quantile(seconds, 0.9) if seconds else None,
        stages=_stages(timed),
        tokens=_tokens([r for r in records if not r.derived]),
    )


def aurc(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the area under the risk-coverage curve: the mean risk over all coverages.

    Args:
        pairs: (confidence, right in 0..1) per answer. Among equal confidences the mean over all
            orders is taken.
    """
    curve = risk_coverage(pairs)
    return sum(risk for _, risk in curve) / len(curve)


def risk_coverage(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return (coverage, risk) when only the most confident 1, 2, ... n answers are given."""
    ranked = sorted(pairs, key=lambda p: -p[0])
    out: list[tuple[float, float]] = []
    wrong, begin = 0.0, 0
    while begin < len(ranked):
        end = begin
        while end < len(ranked) and ranked[end][0] == ranked[begin][0]:
            end += 1
        step = sum(1.0 - right for _, right in ranked[begin:end]) / (end - begin)
        for i in range(begin, end):
            wrong += step
            out.append(((i + 1) / len(ranked), wrong / (i + 1)))
        begin = end
    return out


def calibration(pairs: Sequence[tuple[float, float]]) -> list[Bin]:
    """Return the non-empty bins of (confidence, right) pairs."""
    held: dict[int, list[tuple[float, float]]] = {}
    for confidence, right in pairs:
        held.setdefault(min(N_BINS - 1, int(confidence * N_BINS)), []).append((confidence, right))
    return [
        Bin(
            low=i / N_BINS,
            high=(i + 1) / N_BINS,
            n=len(inside),
            confidence=_mean([c for c, _ in inside]),
            accuracy=_mean([r for _, r in inside]),
        )
        for i, inside in sorted(held.items())
    ]


def ece(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the expected calibration error of (confidence, right) pairs."""
    return sum(b.n * abs(b.accuracy - b.confidence) for b in calibration(pairs)) / len(pairs)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Return the ``q`` quantile of ascending values, interpolated."""
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_NO_STAGE = ("total", "first_event")


def _stages(records: Sequence[Record]) -> dict[str, float]:
    names = dict.fromkeys(name for r in records for name in r.timings if name not in _NO_STAGE)
    return {name: _mean([r.timings.get(name, 0.0) for r in records]) for name in names}


def _tokens(records: Sequence[Record]) -> dict[str, Usage]:
    roles = dict.fromkeys(role for r in records for role in r.usage)
    out = {}
    for role in roles:
        total = sum((r.usage.get(role, Usage()) for r in records), Usage())
        n = len(records)
        out[role] = Usage(
            prefilled=round(total.prefilled / n),
            reused=round(total.reused / n),
            decoded=round(total.decoded / n),
            prefill_s=total.prefill_s / n,
            decode_s=total.decode_s / n,
            total_s=total.total_s / n,
        )
    return out
