"""Small models with their weights as stored beside those in BF16: right answers and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from stored import RESULTS, read_rows

from specrag_native.evaluation.intervals import paired_difference
from specrag_native.evaluation.records import Record
from specrag_native.evaluation.results import read_folder
from tables.sets import ORDER
from tables.speed import WORKLOADS

METHODS = {"cold": "nothing cached", "cached": "passages cached"}

Triple = tuple[Record, Record, Record]
"""A question as it was answered with weights as stored, in BF16, and by standard RAG."""


def weights_table() -> str:
    """Return the Markdown of right answers by set, then of seconds on one machine."""
    return "\n".join([*_answers(), "", *_seconds()])


def _answers() -> list[str]:
    stored, short = (_records("weights", "speculative", kind) for kind in (False, True))
    standard = _records("eval", "standard")
    lines = [
        "| | questions | right, as stored | right, in BF16 | gained, lost | standard RAG right |",
        "|---|---|---|---|---|---|",
    ]
    every: list[Triple] = []
    for name in ORDER:
        both = stored.get(name, {}).keys() & short.get(name, {}).keys() & standard[name].keys()
        found = [(stored[name][i], short[name][i], standard[name][i]) for i in sorted(both)]
        if found:
            lines.append(_line(name.removesuffix("-dev"), found))
        every += found
    if not every:
        return ["Not measured yet."]
    told = paired_difference(*([t[i].grade.right for t in every] for i in (1, 0)))
    beside = paired_difference(*([t[i].grade.right for t in every] for i in (1, 2)))
    same = sum(a.answer == b.answer for a, b, _ in every)
    return [
        *lines,
        _line("together", every),
        "",
        f"The answers, of which eight words are stored, are the same to {same} of {len(every)} "
        "questions. In BF16 "
        f"the difference in right answers is {_points(told)} points to weights as stored, and "
        f"{_points(beside)} to standard RAG.",
    ]


def _records(
    folder: str, method: str, short: bool | None = None
) -> dict[str, Mapping[str, Record]]:
    """Return the records of a method by set and question; ``short``: of one type of weights."""
    return {
        result.header.dataset: result.records
        for result in read_folder(RESULTS / folder)
        if result.header.method == method
        and short in (None, "weights" in result.header.models.get("drafter", {}))
    }


def _line(name: str, found: Sequence[Triple]) -> str:
    stored, short, standard = ([t[i].grade.right for t in found] for i in range(3))
    gained = sum(b > a for a, b in zip(stored, short, strict=True))
    lost = sum(b < a for a, b in zip(stored, short, strict=True))
    cells = (
        *(name, str(len(found)), f"{sum(stored):.0f}", f"{sum(short):.0f}"),
        *(f"{gained}, {lost}", f"{sum(standard):.0f}"),
    )
    return f"| {' | '.join(cells)} |"


def _points(interval: Any) -> str:
    low, mean, high = (100 * x for x in (interval.low, interval.mean, interval.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _seconds() -> list[str]:
    rows = read_rows(RESULTS / "speed.jsonl")
    short = [r for r in rows if r["method"] in METHODS and "drafter weights" in r.get("models", {})]
    if not short:
        return ["Seconds were not measured yet."]
    cpu = short[-1]["machine"]["cpu"]
    lines = [
        "| workload | | n | as stored | in BF16 | standard takes as long, as stored and in BF16 |",
        "|---|---|---|---|---|---|",
    ]
    here = [r for r in rows if r["machine"]["cpu"] == cpu]
    for workload, title in WORKLOADS.items():
        for method, said in METHODS.items():
            found = [_by_id(here, workload, method, kind) for kind in (False, True)]
            ids = found[0].keys() & found[1].keys()
            if not ids:
                continue
            medians = [median(answered[i] for i in ids) for answered in found]
            times = []
            for kind in (False, True):
                standard = _by_id(here, workload, "standard", kind)
                times.append(median(standard[i] for i in ids) / medians[kind])
            cells = (
                *(title, said, str(len(ids)), *(f"{m:.2f} s" for m in medians)),
                ", ".join(f"{t:.2f}x" for t in times),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"{cpu}, 2 threads, medians of the same questions, one type after the other.",
    ]


def _by_id(
    rows: Sequence[Mapping[str, Any]], workload: str, method: str, short: bool
) -> dict[str, float]:
    """Return seconds by question of one workload, method and type of weights.

    Settings are the last that weights as stored were timed with.
    """
    found = [r for r in rows if (r["workload"], r["method"]) == (workload, method)]
    stored = [r for r in found if "drafter weights" not in r.get("models", {})]
    if not stored:
        return {}
    settings = stored[-1].get("settings")
    return {
        r["id"]: r["seconds"]
        for r in found
        if r.get("settings") == settings and ("drafter weights" in r.get("models", {})) == short
    }
