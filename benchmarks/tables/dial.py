"""What it would come to if everything was read more often: accuracy against seconds.

Replayed from the stored evaluation: where the answer is a draft's with a lower confidence than is
asked for, or a reading's with a lower probability, the question has standard RAG's answer, and the
seconds of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from specrag_native.evaluation.intervals import paired_difference
from specrag_native.evaluation.records import Record
from tables.sets import besides, timed

ASKED = ((0.4, 0.0), (0.4, 0.6), (0.6, 0.0), (0.6, 0.6), (1.0, 0.0), (1.0, 0.6), (1.0, 0.8))
"""Values of `questions_above` and `accept_above`; the first are the default, which is measured and
not replayed."""


@dataclass(frozen=True)
class Played:
    """One question: how right, and seconds, beside standard RAG; ``whole``: everything was read."""

    right: float
    standard_right: float
    seconds: float
    standard_seconds: float
    whole: bool
    timed: bool


def play(ours: Record, standard: Record, drafts: float, readings: float) -> Played:
    """Return what a question would come to with these values of the two settings."""
    last = ours.repairs[-1] if ours.repairs else {}
    whole = bool(last.get("whole", False))
    if ours.decided_by == "speculative":  # claims are left as they are
        reads_on = ours.task == "qa" and drafts > ASKED[0][0] and ours.confidence < drafts
    else:
        judged = bool(last) and last.get("step") != "best"  # which has a threshold of its own
        unsure = judged and float(last.get("probability", 0.0)) < readings
        reads_on = not whole and readings > ASKED[0][1] and unsure
    seconds = ours.timings.get("total", 0.0)
    standard_seconds = standard.timings.get("total", 0.0)
    return Played(
        standard.grade.right if reads_on else ours.grade.right,
        standard.grade.right,
        seconds + standard_seconds if reads_on else seconds,
        standard_seconds,
        whole or reads_on,
        timed(ours, standard),
    )


def line(asked: tuple[float, float], played: Iterable[Played]) -> str:
    """Return the line of one pair of values."""
    found = list(played)
    clocked = [p for p in found if p.timed]
    n = len(found)
    interval = paired_difference([p.right for p in found], [p.standard_right for p in found])
    cells = [
        *(f"{value:g}" for value in asked),
        f"{100 * sum(p.whole for p in found) / n:.0f}%",
        f"{100 * sum(p.right for p in found) / n:.1f}%",
        f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]",
        f"{median(p.standard_seconds / p.seconds for p in clocked):.2f}x",
        f"{sum(p.standard_seconds for p in clocked) / sum(p.seconds for p in clocked):.2f}x",
    ]
    return f"| {' | '.join(cells)} |"


def dial_table() -> str:
    """Return the Markdown of accuracy and seconds by the two settings, over all sets."""
    pairs = [pair for one in besides() for pair in one.pairs]
    standard = 100 * sum(b.grade.right for _, b in pairs) / len(pairs)
    lines = [
        "| `questions_above` | `accept_above` | reads everything | right "
        "| difference, points [95%] | standard RAG takes, median of ratios "
        "| all seconds together |",
        "|---|---|---|---|---|---|---|",
        *(line(asked, [play(a, b, *asked) for a, b in pairs]) for asked in ASKED),
        "",
        f"{len(pairs)} questions of the reporting halves, standard RAG right on {standard:.1f}%. "
        "The first line is measured, the others are replayed: where a draft that was "
        "taken has a lower confidence, or a reading a lower probability, standard RAG's answer and "
        "both seconds count. Seconds of one machine only.",
    ]
    return "\n".join(lines)
