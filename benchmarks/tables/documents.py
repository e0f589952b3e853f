"""How questions about this project's own documents are answered, from the index of them."""

from __future__ import annotations

from statistics import median

from stored import RESULTS

from specrag_native.evaluation.results import read_folder

NAMES = {
    "speculative": "Speculative RAG",
    "standard": "standard RAG, all ten passages found",
    "standard_nearest": "standard RAG, only the two passages nearest to the question",
}


def documents_table() -> str:
    """Return the Markdown of right answers, abstentions and seconds by method."""
    found = {r.header.variant: r for r in read_folder(RESULTS / "documents")}
    lines = [
        "| method | questions | right | says nothing is there | seconds, median (longest) |",
        "|---|---|---|---|---|",
    ]
    for name, description in NAMES.items():
        if name not in found:
            continue
        records = found[name].records.values()
        seconds = [r.timings["total"] for r in records]
        lines.append(
            f"| {description} | {len(records)} | {sum(r.grade.right for r in records):.0f} "
            f"| {sum(r.abstained for r in records):.0f} "
            f"| {median(seconds):.1f} ({max(seconds):.1f}) |"
        )
    header = found["speculative"].header
    machine = header.machine
    lines += [
        "",
        f"{machine['cpu']}, {machine['threads']} threads, commit {machine['commit']}; one question "
        "after another on an index in use, so that many passages have been read before. "
        "`specrag index docs/*.md README.md --index own && "
        "specrag eval benchmarks/questions/docs.jsonl --retrieve own --method METHOD --out OUT`.",
    ]
    return "\n".join(lines)
