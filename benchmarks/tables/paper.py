"""The paper's method unmodified beside standard RAG, on the same questions."""

from __future__ import annotations

from statistics import fmean, median

from evaluate import PAPER
from stored import RESULTS

from specrag_native.evaluation.records import Record
from specrag_native.evaluation.results import ResultSet, read_folder

FOLDER = RESULTS / "paper"


def paper_table() -> str:
    """Return the Markdown of drafts and choices, set by set."""
    ours = {r.header.dataset: r for r in _of("speculative", read_folder(FOLDER))}
    standard = {r.header.dataset: r for r in _of("standard", read_folder(RESULTS / "eval"))}
    lines = [
        "| set | questions | chosen draft right | a draft at random | some draft right "
        "| standard RAG right | drafts that say unknown | seconds, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, result in sorted(ours.items()):
        ids = [i for i in result.records if i in standard[name].records]
        here = [result.records[i] for i in ids]
        beside = [standard[name].records[i] for i in ids]
        drafts = [d for r in here for d in r.drafts]
        shares = (
            fmean(r.grade.right for r in here),
            fmean(_at_random(r) for r in here),
            fmean(any(d.grade.right for d in r.drafts) for r in here),
            fmean(r.grade.right for r in beside),
            fmean(d.unknown for d in drafts),
        )
        seconds = median(r.timings["total"] for r in here)
        lines.append(
            f"| {name} | {len(ids)} | {' | '.join(f'{100 * x:.0f}%' for x in shares)} "
            f"| {seconds:.1f} |"
        )
    machine = next(iter(ours.values())).header
    lines += [
        "",
        "Five drafts of two passages each, all of them written, scored and believed, the best by "
        "the full score chosen; no cross-encoder, no repair, nothing cached. The first questions "
        f"of the reporting halves. {machine.place}; `specrag eval SETS --half report --method "
        f"speculative {' '.join(PAPER)}`.",
    ]
    return "\n".join(lines)


def _of(variant: str, results: list[ResultSet]) -> list[ResultSet]:
    return [r for r in results if r.header.variant == variant]


def _at_random(record: Record) -> float:
    return fmean(d.grade.right for d in record.drafts) if record.drafts else 0.0
