"""Writes tables of figures into the documents, and the README's picture, from stored results.

Of ``engine-*.json`` each file is one run of ``bench_engine.py``; of a case that stands in several,
the last run counts. ``retrieval.json`` is a list of runs of ``bench_retrieval.py`` and of
``specrag eval-retrieval``; of each corpus the last run counts.

``python benchmarks/table.py`` renews all; ``--check`` fails when a table is not what the stored
results give.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

from stored import read_rows

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "engine.png"
INDEXING = ROOT / "docs" / "indexing.md"
SPEED = ROOT / "docs" / "speed.md"
CARD = ROOT / "models" / "specrag-drafter-135m.md"
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


def draw(results: dict[str, Any]) -> None:
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
    figure.savefig(PICTURE, dpi=120)


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


WORKLOADS = {
    "hotpotqa": "hotpotqa-dev, 10 passages",
    "triviaqa": "triviaqa-dpr-dev, 5 passages",
    "musique": "musique-dev, 15 passages",
}
METHODS = {
    "standard": "standard RAG, our engine",
    "cold": "Speculative RAG, nothing cached",
    "cached": "Speculative RAG, passages cached",
    "standard-cached": "standard RAG, passages cached and not seeing each other",
    "standard-nearest": "standard RAG, only the two passages nearest to the question",
    "llama-cpp-standard": "standard RAG, llama_cpp.Llama",
    "llama-cpp-speculative": "Speculative RAG, llama_cpp.Llama, one draft after another",
}


def speed_table() -> str:
    """Return the Markdown of seconds per question by workload and method."""
    rows = read_rows(RESULTS / "speed.jsonl")
    lines = [
        "| workload | method | n | seconds, median (range) | standard RAG takes | right "
        "| draft, verify, repair s | drafter tokens | verifier tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for workload, description in WORKLOADS.items():
        here = [r for r in rows if r["workload"] == workload]
        # Methods are compared as they were run together: with the latest settings and models.
        here = [r for r in here if all(r.get(k) == here[-1].get(k) for k in ("settings", "models"))]
        by_method = {m: {r["id"]: r for r in here if r["method"] == m} for m in METHODS}
        for method, name in METHODS.items():
            found = by_method[method]
            if not found:
                continue
            seconds = sorted(r["seconds"] for r in found.values())
            both = [
                (r["seconds"], by_method["standard"][i]["seconds"])
                for i, r in found.items()
                if i in by_method["standard"]
            ]
            factor = median([b for _, b in both]) / median([a for a, _ in both]) if both else 0.0

            def mean(of: list[float]) -> float:
                return sum(of) / len(of)

            stages = ", ".join(
                f"{mean([r['stages'].get(s, 0.0) for r in found.values()]):.1f}"
                for s in ("draft", "verify", "repair")
            )
            tokens = [
                " + ".join(
                    f"{mean([r['usage'].get(role, {}).get(k, 0) for r in found.values()]):.0f}"
                    for k in ("prefilled", "decoded")
                )
                for role in ("drafter", "verifier")
            ]
            right = mean([r["right"] for r in found.values()])
            lines.append(
                f"| {description} | {name} | {len(found)} | {median(seconds):.1f} "
                f"({seconds[0]:.1f}-{seconds[-1]:.1f}) | {factor:.2f}x as long "
                f"| {100 * right:.0f}% | {stages} | {' | '.join(tokens)} |"
            )
    if len(lines) == 2:
        return "Not measured yet."
    last = rows[-1]["machine"]
    chosen = "".join(f" --set {pair}" for pair in rows[-1].get("chosen", ()))
    lines += [
        "",
        f"{last['cpu']}, {last['threads']} threads, commit {last['commit']}, the same questions of "
        "the reporting halves, passages, verifier and threads for every method; "
        f"`python benchmarks/bench_speed.py WORKLOAD --questions SET.jsonl.gz --limit N{chosen}`, "
        "with the settings fitted for the two models. A method with fewer questions than others is "
        "compared on those. Tokens: computed in prefill + written, means. Right: an accepted "
        "answer stands in the response.",
    ]
    return "\n".join(lines)


def cache_table() -> str:
    """Return the Markdown of what a kept passage and a guessed token cost and save."""
    path = RESULTS / "drafting.json"
    if not path.exists():
        return "Not measured yet."
    found = json.loads(path.read_text())
    lines = [
        "| KV cache | bytes per passage | computing it | keeping it | from memory | from disk |",
        "|---|---|---|---|---|---|",
    ]
    run = found["cache"]
    for kv_type in ("f16", "q8_0"):
        r = run[kv_type]
        prefill = r["prefill_ms_per_passage"]

        def cost(ms: float, prefill: float = prefill) -> str:
            return f"{ms:.1f} ms ({100 * ms / prefill:.1f}%)"

        lines.append(
            f"| {kv_type} | {r['bytes_per_passage']:,} | {prefill:.0f} ms "
            f"| {cost(r['keep_ms_per_passage'])} | {cost(r['memory_hit_ms_per_passage'])} "
            f"| {cost(r['disk_hit_ms_per_passage'])} |"
        )
    guess = found["lookup"]
    plain, fast = (guess["decode_s_median"][k] for k in ("plain", "lookup"))
    lines += [
        "",
        f"{run['passages']} passages, {run['f16']['tokens']} tokens, {run['model']}, "
        f"{run['machine']['cpu']}, {run['machine']['threads']} threads; `{run['command']}`.",
        "",
        f"Guessing {guess['guesses']} tokens a step over {guess['prompts']} prompts: "
        f"{guess['same']} drafts the same token for token, {guess['parted_at_a_tie']} part at a "
        f"tie (two choices within {guess['tie_nats']} nats behind the same text, the library's "
        f"noise between shapes of a batch), {guess['other_differences']} differ otherwise; "
        f"{guess['accepted']} of "
        f"{guess['proposed']} guesses accepted; decoding five drafts takes {fast:.2f} s instead of "
        f"{plain:.2f} s, medians; `{guess['command']}`.",
    ]
    return "\n".join(lines)


def drafter_table() -> str:
    """Return the Markdown of how well the trained drafter drafts, beside its untrained base."""
    stored = json.loads((RESULTS / "drafter.json").read_text())
    questions = stored["questions"]
    both = [q for q in questions if "tuned" in q and "untuned" in q]
    lines = [
        "| set | questions | drafter | chosen draft right | at random | some right | unknown |",
        "|---|---|---|---|---|---|---|",
    ]

    def line(name: str, rows: list[dict[str, Any]], who: str) -> None:
        n = len(rows)
        mean = {
            key: sum(r[who][key] for r in rows) / n
            for key in ("right", "random", "some_draft_right")
        }
        unknown = sum(r[who]["unknown"] for r in rows) / sum(r[who]["drafts"] for r in rows)
        shares = [mean["right"], mean["random"], mean["some_draft_right"], unknown]
        label = "trained" if who == "tuned" else "untrained"
        lines.append(
            f"| {name} | {n} | {label} | " + " | ".join(f"{100 * x:.0f}%" for x in shares) + " |"
        )

    for name in sorted({q["set"] for q in both}):
        for who in ("untuned", "tuned"):
            line(name, [q for q in both if q["set"] == name], who)
    for who in ("untuned", "tuned"):
        line("**all of these**", both, who)
    for name in sorted({q["set"] for q in questions} - {q["set"] for q in both}):
        line(name, [q for q in questions if q["set"] == name], "tuned")
    c = stored["check"]["tuned"]
    lines += [
        "",
        f"The same questions for both drafters where both stand; five drafts of two passages, "
        f"chosen by the full score, no repair. `{stored['command']}`.",
        "",
        f"On {c['examples']} held-back examples ({c['answerable']} can be answered from their "
        f"subset): {100 * c['right']:.0f}% answered right; of those that cannot, "
        f"{100 * c['unknown_recall']:.0f}% say unknown, and {100 * c['unknown_precision']:.0f}% of "
        f"the unknowns are right; {100 * c['support']:.0f}% of the rationales' words are supported "
        f"by their passages; {c['rationale_tokens']:.0f} tokens per rationale; "
        f"{100 * c['malformed']:.0f}% malformed. `{stored['check']['command']}`.",
    ]
    return "\n".join(lines)


def evidence_table() -> str:
    """Return the Markdown of how well drafters tell passages with the answer from others."""
    rows = read_rows(RESULTS / "evidence.jsonl")
    lines = [
        "| weights | some draft right | its best passage holds the answer | its best two "
        "| best by cosine | best two by cosine | any passage "
        "| unknown at 0.95: precision, recall |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def share(found: list[bool]) -> str:
        return f"{100 * sum(found) / len(found):.0f}%"

    def best(rows: list[dict[str, Any]], key: str, sign: int, n: int) -> str:
        return share(
            [
                any(r["holds"][i] for i in sorted(_all(r), key=lambda i: sign * r[key][i])[:n])
                for r in rows
            ]
        )

    def _all(row: dict[str, Any]) -> range:
        return range(len(row["holds"]))

    for digest in dict.fromkeys(r["sha256"] for r in rows):
        here = [r for r in rows if r["sha256"] == digest]
        said = [(r["none"][i] >= math.log(0.95), r["holds"][i]) for r in here for i in _all(r)]
        right = [not holds for unknown, holds in said if unknown]
        recalled = [unknown for unknown, holds in said if not holds]
        lines.append(
            f"| `{digest}` | {share([any(r['right']) for r in here])} "
            f"| {best(here, 'none', 1, 1)} | {best(here, 'none', 1, 2)} "
            f"| {best(here, 'cosine', -1, 1)} | {best(here, 'cosine', -1, 2)} "
            f"| {share([any(r['holds']) for r in here])} "
            f"| {share(right) if right else '-'}, {share(recalled)} |"
        )
    sets = dict.fromkeys(r["set"] for r in rows)
    n = max(sum(r["sha256"] == d for r in rows) for d in {r["sha256"] for r in rows})
    lines += [
        "",
        f"{n} questions of the {rows[0]['half']} halves of {', '.join(sets)}; every passage "
        'drafted alone. A passage is best where the drafter is least inclined to begin with "none".'
        " `python benchmarks/bench_evidence.py SETS --drafter FILE --limit 8`.",
    ]
    return "\n".join(lines)


READINGS = {
    "best": "the passage the drafter ranks first",
    "best and sentences": "that, and the sentences most similar to the question",
    "best two": "the two it ranks first",
    "nearest": "the passage most similar to the question",
    "nearest two": "the two most similar",
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


def renewed(text: str, name: str, table: str) -> str:
    """Return the document with the table between the marks of that name."""
    begin, end = f"<!-- {name} table -->", f"<!-- end of {name} table -->"
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n{table}\n{end}{tail}"


def renewed_all(path: Path, tables: dict[str, str]) -> str:
    """Return the document with several tables renewed."""
    text = path.read_text()
    for name, table in tables.items():
        text = renewed(text, name, table)
    return text


def main() -> int:
    """Renew the tables and the picture, or check the tables."""
    results = read_results()
    fresh = {
        README: renewed_all(README, {"engine": engine_table(results)}),
        INDEXING: renewed_all(
            INDEXING, {"retrieval": retrieval_table(), "figures": figures_table()}
        ),
        SPEED: renewed_all(
            SPEED,
            {"speed": speed_table(), "readings": readings_table(), "cache": cache_table()},
        ),
        CARD: renewed_all(CARD, {"drafter": drafter_table(), "evidence": evidence_table()}),
    }
    if "--check" in sys.argv:
        stale = [path.name for path, text in fresh.items() if text != path.read_text()]
        for name in stale:
            print(f"{name} is not what the stored results give")
        return 1 if stale else 0
    for path, text in fresh.items():
        path.write_text(text)
    draw(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
