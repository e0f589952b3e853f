"""All sets of the stored evaluation together: each method beside standard RAG."""

from __future__ import annotations

from stored import RESULTS

from specrag_native.evaluation.comparison import Group, group
from specrag_native.evaluation.results import read_folder
from specrag_native.evaluation.tables import Table, overall_table

_NAMES = {
    "speculative": "Speculative RAG, nothing cached",
    "standard_nearest": "standard RAG, two nearest passages",
    "drafter": "the drafter alone",
}


def together_table() -> str:
    """Return the Markdown of accuracy and seconds over all sets, one line a method."""
    groups = group(read_folder(RESULTS / "eval"))
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
    lines += [
        "",
        f"The reporting halves of {len(groups)} sets, {_counts(groups)} "
        "([docs/results.md](docs/results.md)). Seconds: the median of the ratios, question by "
        "question, where one machine answered both.",
    ]
    return "\n".join(lines)


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
