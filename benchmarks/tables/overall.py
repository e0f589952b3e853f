"""All sets of the stored evaluation together: each method beside standard RAG."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from stored import RESULTS

from specrag_native.evaluation.comparison import Group, group
from specrag_native.evaluation.results import ResultSet, read_folder
from specrag_native.evaluation.tables import Table, overall_table

SEEN: Mapping[str, int] = {
    "hotpotqa-dev": 100,
    "nq-dpr-dev": 100,
    "musique-dev": 100,
    "triviaqa-dpr-dev": 100,
    "popqa-active-dev": 91,
    "pubhealth-dev": 80,
    "arc-challenge-dev": 80,
}
"""How many questions of each set, the first, had been answered and looked at when the settings of
today were chosen."""

_NAMES = {
    "speculative": "Speculative RAG, nothing cached",
    "standard_nearest": "standard RAG, two nearest passages",
    "drafter": "the drafter alone",
}


def together_table() -> str:
    """Return the Markdown of accuracy and seconds over all sets, one line a method."""
    results = read_folder(RESULTS / "eval")
    groups = group(results)
    found = overall_table(groups)
    if found is None:
        return "Not measured yet."
    lines = [
        "| | questions | right | standard RAG right | wins | loses | difference, points [95%] "
        "| standard RAG takes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method, name in _NAMES.items():
        for cells in _lines(found, method):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    later = overall_table(group(after(results, SEEN)))
    for cells in _lines(later, "speculative") if later is not None else ():
        unseen = f"{_NAMES['speculative']}; of these, the questions not seen before"
        lines.append(f"| {unseen} | {' | '.join(cells)} |")
    lines += [
        "",
        f"The reporting halves of {len(groups)} sets, {_counts(groups)} "
        "([docs/results.md](docs/results.md)). Seconds: the median of the ratios, question by "
        "question, where one machine answered both. Not seen before: answered by no earlier "
        "settings, so that nothing was chosen by them.",
    ]
    return "\n".join(lines)


def after(results: Sequence[ResultSet], seen: Mapping[str, int]) -> list[ResultSet]:
    """Return results without the first ``seen`` questions of a set, by the order of standard RAG's.

    A set that ``seen`` does not name was not seen.
    """
    first: dict[str, set[str]] = {}
    for result in results:
        if result.header.method == "standard":
            dataset = result.header.dataset
            first[dataset] = set(list(result.records)[: seen.get(dataset, 0)])
    left = [
        dataclasses.replace(
            result,
            records={
                id: record
                for id, record in result.records.items()
                if id not in first.get(result.header.dataset, ())
            },
        )
        for result in results
    ]
    return [result for result in left if result.records]


def _lines(table: Table, method: str) -> list[list[str]]:
    """Return the cells of a method's lines, as the README has them."""
    columns = list(table.columns)
    shown = ["n", "Right %", "Standard right %", "Wins", "Loses", columns[-2], "Standard takes"]
    places = [columns.index(name) for name in shown]
    lines = []
    for row in table.rows:
        if row[0] == method:
            cells = [row[i] for i in places]
            cells[1], cells[2] = f"{cells[1]}%", f"{cells[2]}%"
            cells[5] = cells[5].partition(" (")[0]
            cells[6] += " as long"
            lines.append(cells)
    return lines


def _counts(groups: list[Group]) -> str:
    """Return how many questions of each set Speculative RAG has answered."""
    counts = {
        g.dataset.removesuffix("-dev"): entry.summary.n
        for g in groups
        if (entry := g.find("speculative")) is not None
    }
    return ", ".join(f"{n} of {name}" for name, n in counts.items())
