"""The figures of a report as rows of text, for Markdown and for the page alike.

Law: a cell is text, ready to be read; what was not measured is a dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from specrag_native.evaluation.comparison import Entry, Group, difference
from specrag_native.evaluation.intervals import Interval
from specrag_native.evaluation.records import Record
from specrag_native.types import Usage

NONE = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, a note, column names and rows of text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def accuracy_table(groups: Sequence[Group]) -> Table:
    """Return accuracy per set and method, with the difference to standard RAG."""
    rows = []
    for group in groups:
        for i, e in enumerate(group.main):
            s = e.summary
            rows.append(
                (
                    group.title if i == 0 else "",
                    _name(e),
                    str(s.n),
                    _interval(s.accuracy),
                    _difference(e.against(group.baseline) if group.baseline else None),
                    percent(s.exact),
                    percent(s.f1),
                    f"{s.words:.1f}",
                    percent(s.abstained),
                    percent(s.accuracy_answered),
                    percent(s.oracle),
                    percent(s.verified),
                    _number(s.aurc),
                    _number(s.ece),
                )
            )
    return Table(
        "Accuracy",
        (
            "Set",
            "Method",
            "n",
            "Right % [95%]",
            "\N{MINUS SIGN} standard [95%]",
            "EM %",
            "F1 %",
            "Words",
            "Abstains %",
            "Right % when answering",
            "A draft right %",
            "Drafts verified %",
            "AURC",
            "ECE",
        ),
        tuple(rows),
        "Right: an accepted answer stands in the response as whole words; for claims and choices "
        "the right option is named. It favours long answers: Words is the mean length of answers "
        "given. Intervals are percentile bootstraps over questions, paired where they are "
        "differences. AURC: area under the risk-coverage curve (lower is better); ECE: expected "
        "calibration error, 10 bins; both over answers given. Methods in italics are computed from "
        "the drafts of speculative, without running a model.",
    )


def overall_table(groups: Sequence[Group]) -> Table | None:
    """Return each method beside standard RAG over all sets, or ``None`` where there is but one."""
    pairs: dict[str, list[tuple[Record, Record]]] = {}
    timed: dict[str, list[float]] = {}
    sets: dict[str, int] = {}
    for group in groups:
        for e in group.main:
            if group.baseline is None or e is group.baseline:
                continue
            found = e.beside(group.baseline)
            name = _name(e)
            pairs.setdefault(name, []).extend(found)
            sets[name] = sets.get(name, 0) + bool(found)
            if not (e.derived or e.contended or group.baseline.contended):
                timed.setdefault(name, []).extend(_ratios(found))
    rows = []
    for name, found in pairs.items():
        if sets[name] < 2:
            continue
        right = [(a.grade.right, b.grade.right) for a, b in found]
        rows.append(
            (
                name,
                str(sets[name]),
                str(len(found)),
                percent(sum(a for a, _ in right) / len(right)),
                percent(sum(b for _, b in right) / len(right)),
                str(sum(a > b for a, b in right)),
                str(sum(a < b for a, b in right)),
                _difference(difference(found)),
                f"{median(timed[name]):.2f}x" if timed.get(name) else NONE,
            )
        )
    if not rows:
        return None
    return Table(
        "All sets together",
        (
            "Method",
            "Sets",
            "n",
            "Right %",
            "Standard right %",
            "Wins",
            "Loses",
            "\N{MINUS SIGN} standard [95%]",
            "Standard takes",
        ),
        tuple(rows),
        "The questions that both the method and standard RAG have answered, all sets alike. "
        "Standard takes: the median of the ratios of seconds, question by question, where one "
        "machine answered both.",
    )


def _ratios(pairs: Sequence[tuple[Record, Record]]) -> list[float]:
    """Return how many times longer the second of each pair took, if one machine answered both."""
    seconds = [
        (a.timings.get("total", 0.0), b.timings.get("total", 0.0))
        for a, b in pairs
        if a.machine == b.machine
    ]
    return [b / a for a, b in seconds if a > 0]


def cost_table(groups: Sequence[Group]) -> Table:
    """Return seconds and tokens per question."""
    rows = []
    for group in groups:
        shown = [e for e in group.main if not e.derived]
        for i, e in enumerate(shown):
            s = e.summary
            busy = " *" if e.contended else ""
            rows.append(
                (
                    group.title if i == 0 else "",
                    _name(e),
                    f"{s.n_timed}",
                    _number(s.seconds_median, 1) + busy,
                    _number(s.seconds_p90, 1) + busy,
                    ", ".join(f"{n} {v:.1f}" for n, v in s.stages.items() if v >= 0.05) or NONE,
                    _tokens(s.tokens.get("drafter")),
                    _tokens(s.tokens.get("verifier")),
                )
            )
    return Table(
        "Cost per question",
        (
            "Set",
            "Method",
            "n timed",
            "Seconds, median",
            "Seconds, p90",
            "Mean seconds by stage",
            "Drafter tokens",
            "Verifier tokens",
        ),
        tuple(rows),
        "Tokens: computed in prefill + reused + generated, means. Vectors of passages are stored "
        "in an index in use and are not counted; embedding the question is. Seconds are those of "
        f"one machine: {_places(groups)}. * The machine did "
        "other work at the time: these seconds are not to be compared; tokens are.",
    )


def _places(groups: Sequence[Group]) -> str:
    """Return which machines the seconds of sets come from."""
    sets: dict[str, list[str]] = {}
    for group in groups:
        sets.setdefault(group.place or "unknown", []).append(group.title)
    if len(sets) == 1:
        return next(iter(sets))
    return "; ".join(f"{place} for {', '.join(titles)}" for place, titles in sets.items())


def variant_table(group: Group) -> Table | None:
    """Return ablations and sweeps of one set beside speculative itself, or ``None``."""
    variants = [e for e in group.entries if e not in group.main]
    pairs = [(e, base) for e in variants if (base := group.base_of(e)) is not None]
    if not pairs:
        return None
    bases = {id(base): base for _, base in pairs}.values()
    rows = []
    for e, base in [*((b, b) for b in bases), *pairs]:
        s = e.summary
        rows.append(
            (
                _name(e),
                str(s.n),
                _interval(s.accuracy),
                _difference(e.against(base)),
                percent(s.abstained),
                percent(s.oracle),
                f"{s.drafts:.1f}" if s.drafts is not None else NONE,
                _tokens(s.tokens.get("verifier")),
            )
        )
    return Table(
        f"Variants on {group.title}",
        (
            "Variant",
            "n",
            "Right % [95%]",
            "\N{MINUS SIGN} speculative [95%]",
            "Abstains %",
            "A draft right %",
            "Drafts",
            "Verifier tokens",
        ),
        tuple(rows),
        "Variants in italics choose again among the same scored drafts.",
    )


def markdown(table: Table) -> str:
    """Return a table as Markdown."""

    def line(cells: Sequence[str]) -> str:
        escaped = (c.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for c in cells)
        return "| " + " | ".join(escaped) + " |"

    rule = "| " + " | ".join("---" for _ in table.columns) + " |"
    body = "\n".join(line(row) for row in table.rows)
    note = f"\n\n{table.note}" if table.note else ""
    return f"## {table.title}\n\n{line(table.columns)}\n{rule}\n{body}{note}\n"


def percent(share: float | None) -> str:
    """Return a share as a percentage."""
    return NONE if share is None else f"{100 * share:.1f}"


def _name(entry: Entry) -> str:
    return f"*{entry.name}*" if entry.derived else entry.name


def _number(value: float | None, places: int = 3) -> str:
    return NONE if value is None else f"{value:.{places}f}"


def _interval(i: Interval) -> str:
    return f"{100 * i.mean:.1f} [{100 * i.low:.1f}, {100 * i.high:.1f}]"


def _difference(i: Interval | None) -> str:
    if i is None:
        return NONE
    n = "" if i.n == 0 else f" (n={i.n})"
    return f"{100 * i.mean:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]{n}"


def _tokens(usage: Usage | None) -> str:
    return NONE if usage is None else f"{usage.prefilled}+{usage.reused}+{usage.decoded}"
