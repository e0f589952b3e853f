"""The engine against the library's own Python bindings: a table and a picture.

Of ``engine-*.json`` each file is one run of ``bench_engine.py``; of a case that stands in several,
the last run counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stored import RESULTS

COMMAND = "pytest benchmarks/bench_engine.py --benchmark-json=benchmarks/results/engine-N.json"


def read_results() -> dict[str, Any]:
    """Return the cases of all runs, and the machine of the last."""
    runs = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("engine-*.json"))]
    return {
        "benchmarks": [case for run in runs for case in run["benchmarks"]],
        "machine_info": runs[-1]["machine_info"],
    }


def cases(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the benchmarks by the name of their test; the last of a name counts."""
    return {case["name"]: case for case in results["benchmarks"]}


def rows(results: dict[str, Any]) -> list[tuple[str, str, float, float]]:
    """Return (work, rival, our median, the rival's median) in seconds."""
    by_name = cases(results)

    def median(name: str) -> float:
        return float(by_name[name]["stats"]["median"])

    return [
        (
            "draft 5 prompts, 40 tokens each (135M)",
            "llama_cpp.Llama, one by one",
            median("test_drafting_five_prompts"),
            median("test_drafting_one_by_one_with_llama_cpp_python"),
        ),
        (
            "score 5 drafts of some 70 tokens (1.5B)",
            "llama_cpp.Llama, logits_all",
            median("test_scoring_five_drafts"),
            median("test_scoring_with_logits_all_in_llama_cpp_python"),
        ),
    ]


def engine_table(results: dict[str, Any]) -> str:
    """Return the Markdown between the marks."""
    by_name = cases(results)
    info = results["machine_info"]["cpu"].get("brand_raw", "unknown CPU")
    extra = by_name["test_drafting_five_prompts"]["extra_info"]
    lines = [
        "| work | specrag-native | rival | factor |",
        "|---|---|---|---|",
    ]
    for work, rival, ours, theirs in rows(results):
        lines.append(f"| {work} | {ours:.2f} s | {theirs:.2f} s ({rival}) | {theirs / ours:.1f}x |")
    lines += [
        "",
        f"Medians on {info}, {extra['threads']} threads, commit {extra['commit']}; `{COMMAND}`.",
    ]
    return "\n".join(lines)


def draw(results: dict[str, Any], picture: Path) -> None:
    """Draw the picture of the same figures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 2.6))
    for y, (work, rival, ours, theirs) in enumerate(reversed(rows(results))):
        axes.barh(y + 0.2, ours, 0.36, color="#2a6f97")
        axes.barh(y - 0.2, theirs, 0.36, color="#bbbbbb")
        axes.text(ours, y + 0.2, f" {ours:.1f} s  specrag-native", va="center", fontsize=9)
        axes.text(theirs, y - 0.2, f" {theirs:.1f} s  {rival}", va="center", fontsize=9)
        axes.text(0, y + 0.46, work, fontsize=9, weight="bold")
    axes.set_yticks([])
    axes.set_xlabel("seconds, shorter is better")
    axes.set_xlim(0, 1.35 * max(theirs for *_, theirs in rows(results)))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=120)
