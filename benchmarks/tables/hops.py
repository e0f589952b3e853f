"""How often a hop ranker finds the two passages that a question takes.

``hops.json``: per run the questions of tuning halves whose two best passages, as it pairs them, are
both marked, and how many questions of a set it says take several passages; measured on the GPU in
bfloat16 before anything was quantised.
"""

from __future__ import annotations

import json

from stored import RESULTS


def hops_table() -> str:
    """Return the Markdown of what each run finds."""
    stored = json.loads((RESULTS / "hops.json").read_text())
    marked = list(stored["rows"][0]["pairs"])
    asked = list(next(r["routed"] for r in stored["rows"] if r["routed"]))
    names = [name.removesuffix("-dev") for name in asked]
    lines = [
        "| pairs by | steps | seconds | both marked: "
        + " | ".join(name.removesuffix("-dev") for name in marked)
        + " | takes several: "
        + " | ".join(names)
        + " |",
        "|---" * (3 + len(marked) + len(asked)) + "|",
    ]
    for row in stored["rows"]:
        cells = [row["name"], str(row["steps"] or "-"), str(row["seconds"] or "-")]
        cells += ["{} of {}".format(*row["pairs"][name]) for name in marked]
        cells += [
            "{} of {}".format(*row["routed"][name]) if row["routed"] else "-" for name in asked
        ]
        name = f"**{cells[0]}**, shipped" if row["run"] == stored["shipped"] else cells[0]
        lines.append("| " + " | ".join([name, *cells[1:]]) + " |")
    return (
        "\n".join(lines)
        + f"\n\nTuning halves, {stored['gpu']}. Trained ones begin with the reranker's weights; "
        f"the score of a passage linked to the first by a title counts {stored['link']:g} more. "
        "Two of the runs ended by the clock before their last step (947 of 1,032, 894 of 1,160)."
    )
