"""How well and how fast passages are found.

``retrieval.json`` is a list of runs of ``bench_retrieval.py`` and of ``specrag eval-retrieval``; of
each corpus the last run counts.
"""

from __future__ import annotations

import json
from typing import Any

from stored import RESULTS


def retrieval_table() -> str:
    """Return the Markdown of how well passages are found."""
    lines = [
        "| questions | corpus | measure | words | embeddings | both |",
        "|---|---|---|---|---|---|",
    ]
    runs = json.loads((RESULTS / "retrieval.json").read_text())
    last: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run["benchmark"] == "quality" and "embedding was not finished" not in run["corpus"]:
            last[run["questions"]] = run
    for questions, run in last.items():
        by_name = {r["ranking"]: r for r in run["results"]}
        for key, name in (("ndcg_10", "nDCG@10"), ("recall_10", "recall@10")):
            if key in by_name["words"]:
                found = [f"{by_name[r][key]:.3f}" for r in ("words", "dense", "hybrid")]
                lines.append(f"| {questions} | {run['corpus']} | {name} | {' | '.join(found)} |")
    return "\n".join(lines)


def figures_table() -> str:
    """Return the Markdown of what else was measured of the index; the last run of each counts."""
    last: dict[str, dict[str, Any]] = {}
    for run in json.loads((RESULTS / "retrieval.json").read_text()):
        last[run["benchmark"]] = run
    lines = ["| what | measured | by |", "|---|---|---|"]

    def line(what: str, found: str, name: str) -> None:
        lines.append(f"| {what} | {found} | `{last[name]['command']}` |")

    run = last["million"]
    line(
        f"search of 10 in {run['passages']:,} generated passages",
        f"median {run['search_10']['median_ms']:.0f} ms, p95 {run['search_10']['p95_ms']:.0f} ms "
        f"(vectors {run['dense_part']['median_ms']:.1f} ms, words "
        f"{run['words_part']['median_ms']:.0f} ms); {run['peak_rss_mb']} MB of memory at most; "
        f"opened in {run['open_and_load_ms']:.0f} ms",
        "million",
    )
    run = last["latency"]
    line(
        f"opening an index of {run['passages']:,} passages",
        f"{run['open_and_load_ms_median_of_7_fresh_processes']:.0f} ms, median of 7 processes",
        "latency",
    )
    line(
        "size on disk per 1,000 passages",
        f"{run['disk_bytes_per_1000_passages'] / 1e6:.1f} MB",
        "latency",
    )
    rates = last["embed"]["passages_per_second"]
    line(
        "passages embedded per second",
        f"{rates['ours']:.1f}; llama_cpp.Llama {rates['llama_cpp_batch']:.1f} as a list, "
        f"{rates['llama_cpp_single']:.1f} one by one, same model and threads",
        "embed",
    )
    run = last["citations"]
    line(
        f"cited spans of {run['answers']} answers found verbatim in their document",
        f"{run['verbatim']} of {run['citations']}",
        "citations",
    )
    if "rerank" in last:
        run = last["rerank"]
        found = {r["ranking"]: r for r in run["results"]}
        both, again = found["hybrid"], found["hybrid + rerank"]
        line(
            f"reranking {run['depth']} hits by {run['model']}, {run['questions']}",
            f"nDCG@10 {both['ndcg_10']:.3f} to {again['ndcg_10']:.3f}, MRR@10 "
            f"{both['mrr_10']:.3f} to {again['mrr_10']:.3f}, for {again['median_ms'] / 1000:.1f} s "
            "a question",
            "rerank",
        )
    run = last["sizes"]
    sizes = "; ".join(
        f"{r['passage_words']} words, overlap {r['overlap']}: {r['hybrid']['ndcg_10']:.3f} "
        f"({r['passages']} passages)"
        for r in run["results"]
    )
    line(f"nDCG@10 by passage size, {run['corpus']}", sizes, "sizes")
    return "\n".join(lines)
