"""A folder of results becomes a page, plots and a Markdown table.

Law: the same results give the same report; nothing is computed here that is not in a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specrag_native.evaluation import page, tables
from specrag_native.evaluation.comparison import Entry, Group, group
from specrag_native.evaluation.datasets import Dataset
from specrag_native.evaluation.latency import latency_table, latest
from specrag_native.evaluation.results import read_folder

N_ENOUGH = 100
"""Questions of a set below which the document calls its figures a preview."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where a report was written, and its tables."""

    page: Path
    plots: tuple[Path, ...]
    markdown: str


def write_report(
    folder: Path, out: Path, *, plots: bool = True, questions: Sequence[Dataset] = ()
) -> Report:
    """Write ``report.html``, ``report.md`` and the plots of the results in ``folder``.

    Args:
        folder: the results.
        out: where the report goes.
        plots: whether to draw; needs matplotlib.
        questions: sets whose questions and accepted answers the page may show.

    Raises:
        ResultsError: there are no results, or some cannot be read.
    """
    groups = group(read_folder(folder))
    out.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, bytes] = {}
    if plots:
        from specrag_native.evaluation.plots import draw_all

        drawn = draw_all(groups)
    written = []
    for name, png in drawn.items():
        path = out / f"{name}.png"
        path.write_bytes(png)
        written.append(path)
    shown = all_tables(groups)
    text = "\n".join(tables.markdown(t) for t in shown)
    (out / "report.md").write_text(text, encoding="utf-8")
    known = {(d.name, e.id): e for d in questions for e in d.examples}
    target = out / "report.html"
    target.write_text(page.render(groups, shown, drawn, known), encoding="utf-8")
    return Report(target, tuple(written), text)


def all_tables(groups: Sequence[Group]) -> list[tables.Table]:
    """Return the tables of a report."""
    variants = [t for g in groups if (t := tables.variant_table(g)) is not None]
    overall = tables.overall_table(groups)
    together = [] if overall is None else [overall]
    return [tables.accuracy_table(groups), *together, tables.cost_table(groups), *variants]


def results_document(folder: Path, latency: Path | None = None) -> str:
    """Return ``docs/results.md``: the tables, and the commands they come from.

    Args:
        folder: the results of runs.
        latency: a folder of results of the latency benchmarks.
    """
    groups = group(read_folder(folder))
    entries = [e for g in groups for e in g.entries if not e.derived]
    commands = dict.fromkeys(e.header.command for e in entries)
    machines = dict.fromkeys(
        "{cpu}, {threads} threads, llama-cpp-python {llama_cpp_python}, commit {commit}".format_map(
            {"cpu": "?", "threads": "?", "llama_cpp_python": "?", "commit": "?"}
            | dict(e.header.machine)
        )
        for e in entries
    )
    models = dict.fromkeys(
        f"{role}: {m['file']}, sha256 `{m['sha256']}`"
        for e in entries
        for role, m in e.header.models.items()
    )
    measured = latest(latency) if latency is not None else None
    parts = [
        "# Results",
        "Generated from `benchmarks/results/` by `specrag report benchmarks/results/eval "
        + ("--latency benchmarks/results/latency " if latency is not None else "")
        + "--document docs/results.md`; do not edit.",
        *_cautions(entries),
        *([tables.markdown(latency_table(measured)).strip()] if measured is not None else []),
        *(tables.markdown(t).strip() for t in all_tables(groups)),
        "## How this was made",
        "Machine and code:\n\n" + "\n".join(f"- {m}" for m in machines),
        "Models:\n\n" + "\n".join(f"- {m}" for m in models),
        "Commands:\n\n```sh\n" + "\n".join(commands) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _cautions(entries: Sequence[Entry]) -> list[str]:
    """Return what a reader must know before believing the figures."""
    said = []
    fewest = min((e.summary.n for e in entries), default=0)
    if fewest < N_ENOUGH:
        said.append(
            f"Some methods have answered only {fewest} questions of a set (column n): a preview. "
            f"Intervals are wide below {N_ENOUGH} questions; a difference whose interval holds "
            "zero is no finding."
        )
    if any(e.contended for e in entries):
        said.append(
            "Seconds marked * were measured while the machine did other work, some with the "
            "process stopped in between: they say nothing of speed. Tokens are exact."
        )
    return said
