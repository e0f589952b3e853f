"""What the verifier answers from few passages, by how they were chosen."""

from __future__ import annotations

from typing import Any

from stored import RESULTS, read_rows

READINGS = {
    "best": "the passage the drafter ranks first",
    "best and linked": "that, and of those linked to it the next",
    "best two": "the two it ranks first",
    "best two, must answer": "the same, and must answer",
    "best and nearest": "the first, and the other most similar to the question",
    "best and nearest, must answer": "the same, and must answer",
    "nearest": "the passage most similar to the question",
    "nearest two": "the two most similar",
    "nearest two, must answer": "the same, and must answer",
}


def readings_table() -> str:
    """Return the Markdown of what the verifier answers from few passages, by their choice."""
    rows = read_rows(RESULTS / "readings.jsonl")
    if not rows:
        return "Not measured yet."
    rows = [r for r in rows if r["models"] == rows[-1]["models"]]
    sets = list(dict.fromkeys(r["set"] for r in rows))

    def right(name: str, of: list[dict[str, Any]]) -> int:
        return sum(r["readings"][name]["right"] for r in of)

    lines = [
        f"| the verifier reads | words | finds an answer | right | {' | '.join(sets)} |",
        f"|---|---|---|---|{'---|' * len(sets)}",
    ]
    for name, description in READINGS.items():
        words = sum(r["readings"][name]["words"] for r in rows) / len(rows)
        found = sum(r["readings"][name]["found"] for r in rows)
        by_set = [right(name, [r for r in rows if r["set"] == one]) for one in sets]
        lines.append(
            f"| {description} | {words:.0f} | {found} | {right(name, rows)} "
            f"| {' | '.join(map(str, by_set))} |"
        )
    counts = ", ".join(str(sum(r["set"] == one for r in rows)) for one in sets)
    holds = [sum(r["holds"][name] for r in rows) for name in ("best", "nearest")]
    lines += [
        "",
        f"{len(rows)} questions of the {rows[0]['half']} halves ({counts} of the sets), the first "
        f"of each. An accepted answer stands somewhere in the first passage by the drafter on "
        f"{holds[0]}, in the most similar one on {holds[1]}. "
        f"`python benchmarks/bench_readings.py SETS`.",
    ]
    return "\n".join(lines)
