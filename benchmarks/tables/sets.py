"""Seconds and right answers set by set: Speculative RAG beside standard RAG, table and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stored import RESULTS

from specrag_native.evaluation.comparison import group
from specrag_native.evaluation.intervals import paired_difference
from specrag_native.evaluation.records import Record
from specrag_native.evaluation.results import read_folder
from tables.speed import tuned
from tables.unseen import SEEN, after

ORDER = (
    *("hotpotqa-dev", "musique-dev", "nq-dpr-dev", "triviaqa-dpr-dev", "popqa-active-dev"),
    *("pubhealth-dev", "arc-challenge-dev"),
)
"""The sets with the most to read come first."""
FRESH_ONE = ("triviaqa-e5-dev", "nq-e5-dev", "popqa-e5-dev", "popqa-gold-dev")
FRESH_TWO = (
    *("2wikimultihopqa-dev", "mhqa-dpr-dev", "bamboogle-e5-dev"),
    "musique-retrieved-dev",
)
FRESH = (*FRESH_ONE, *FRESH_TWO)
"""Sets that no weight was fitted to; of the second ones the answer takes two passages."""
KINDS = {
    "one passage is enough": (*ORDER[2:5], *FRESH_ONE),
    "claims and multiple choice": ORDER[5:],
    "the answer takes two passages": (*ORDER[:2], *FRESH_TWO),
}
_COLOURS = ("#bbbbbb", "#2a6f97")


@dataclass(frozen=True)
class Beside:
    """Two methods on the questions of a set that both answered; ``timed``: by one machine.

    ``machine``: the last that Speculative RAG answered on, with what was tuned there.
    """

    dataset: str
    pairs: Sequence[tuple[Record, Record]]
    machine: Mapping[str, Any]

    @property
    def timed(self) -> list[tuple[float, float]]:
        """Seconds of both, question by question; a question that one failed on has none."""
        return [(a.timings["total"], b.timings["total"]) for a, b in self.pairs if timed(a, b)]

    def said(self, which: int) -> str:
        """Return the median seconds and the right answers of one of both."""
        right = sum(pair[which].grade.right for pair in self.pairs)
        seconds = median(pair[which] for pair in self.timed)
        return f"{seconds:.1f} s, {right:.0f} right"


def timed(a: Record, b: Record) -> bool:
    """Return whether one machine answered both and neither failed: seconds may be compared."""
    return a.machine == b.machine and "total" in a.timings and "total" in b.timings


def besides(
    names: Sequence[str] = ORDER, folder: str = "eval", seen: Mapping[str, int] | None = None
) -> list[Beside]:
    """Return Speculative RAG beside standard RAG, for each set of a stored evaluation.

    Without the first questions of a set that were ``seen``.
    """
    found = {}
    for g in group(after(read_folder(RESULTS / folder), seen or {})):
        entry = g.find("speculative")
        if entry is not None and g.baseline is not None:
            pairs = entry.beside(g.baseline)
            found[g.dataset] = Beside(g.dataset, pairs, entry.header.machine)
    return [found[name] for name in names if name in found]


def fresh_table() -> str:
    """Return the Markdown of the sets that no weight was fitted to, and what they come to."""
    found = besides(FRESH, "fresh")
    if not found:
        return "Not measured yet."
    lines = [_table(found), "", f"Together, {_said(found)}."]
    if later := besides(FRESH, "fresh", SEEN):
        counts = ", ".join(f"{len(b.pairs)} of {b.dataset.removesuffix('-dev')}" for b in later)
        lines += ["", f"Of these, those answered after the settings were chosen ({counts}): "]
        lines[-1] += f"{_said(later)}."
    return "\n".join(lines)


def kinds_table() -> str:
    """Return the Markdown of right answers by kind of question, over all sets of both folders."""
    lines = ["| | questions | Speculative RAG right | standard RAG right |", "|---|---|---|---|"]
    for kind, names in KINDS.items():
        found = [*besides(names), *besides(names, "fresh")]
        pairs = [pair for one in found for pair in one.pairs]
        ours, standard = (sum(p[i].grade.right for p in pairs) for i in (0, 1))
        sets = ", ".join(one.dataset.removesuffix("-dev") for one in found)
        lines.append(f"| {kind} ({sets}) | {len(pairs)} | {ours:.0f} | {standard:.0f} |")
    return "\n".join(lines)


def _said(found: Sequence[Beside]) -> str:
    """Return what some sets come to together, as a clause."""
    pairs = [pair for one in found for pair in one.pairs]
    ours, standard = ([p[i].grade.right for p in pairs] for i in (0, 1))
    difference = paired_difference(ours, standard)
    won, lost = (
        sum(a > b for a, b in zip(*two, strict=True))
        for two in ((ours, standard), (standard, ours))
    )
    low, mean, high = (100 * x for x in (difference.low, difference.mean, difference.high))
    clocked = [pair for one in found for pair in one.timed]
    every = sum(b for _, b in clocked) / sum(a for a, _ in clocked)
    return (
        f"Speculative RAG is right on {sum(ours):.0f} of {len(pairs)} questions and standard RAG "
        f"on {sum(standard):.0f}: {won} won, {lost} lost, a difference of {mean:+.1f} points with "
        f"a 95% interval of {low:+.1f} to {high:+.1f}; standard RAG takes "
        f"{median(b / a for a, b in clocked):.2f} times as long (median of the ratios; "
        f"{every:.2f} times all seconds together)"
    )


def sets_table() -> str:
    """Return the Markdown of seconds and right answers, one line a set."""
    return _table(besides())


def _table(found: Sequence[Beside]) -> str:
    lines = [
        "| | questions | standard RAG | Speculative RAG | standard RAG takes |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        factor = median(b / a for a, b in one.timed)
        cells = (
            str(len(one.pairs)),
            one.said(1),
            one.said(0),
            f"{factor:.1f} times as long ({len(one.timed)} timed)",
        )
        lines.append(f"| {one.dataset.removesuffix('-dev')} | {' | '.join(cells)} |")
    machines = sorted({a.machine for one in found for a, b in one.pairs if timed(a, b)})
    chosen = sorted({tuned(one.machine).rstrip(", ") for one in found} - {""})
    return "\n".join(
        [
            *lines,
            "",
            f"Medians, nothing seen before; seconds of the {sum(len(one.timed) for one in found)} "
            f"questions that one machine answered both ways ({'; '.join([*machines, *chosen])}).",
        ]
    )


def draw(picture: Path) -> None:
    """Draw the median seconds of both, set by set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = besides()
    figure, axes = pyplot.subplots(figsize=(8, 0.8 + 0.62 * len(found)))
    longest = max(max(median(x) for x in zip(*one.timed, strict=True)) for one in found)
    for place, one in enumerate(found):
        top = -2.6 * place
        name = f"{one.dataset.removesuffix('-dev')}, {len(one.pairs)} questions"
        axes.text(-0.02 * longest, top - 0.5, name, ha="right", va="center", fontsize=9)
        for line, (which, method) in enumerate(((1, "standard RAG"), (0, "Speculative RAG"))):
            seconds = median(pair[which] for pair in one.timed)
            axes.barh(top - line, seconds, 0.85, color=_COLOURS[line])
            label = f" {one.said(which)}" + (f"  {method}" if place == 0 else "")
            axes.text(seconds, top - line, label, va="center", fontsize=8.5)
    axes.set_yticks([])
    axes.set_xlabel("seconds to an answer, median; shorter is better")
    axes.set_xlim(0, 1.3 * longest)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=120)
