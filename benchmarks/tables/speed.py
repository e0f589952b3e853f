"""Seconds of an answer by method, what few passages are worth, and what a kept one costs."""

from __future__ import annotations

import json
from statistics import median
from typing import Any

from stored import RESULTS, read_rows

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
    for name, counted in found.items():
        if not name.startswith("tokens "):
            continue
        shares = ", ".join(
            f"{layout} {counted[layout]['computed'] / counted[layout]['distinct']:.3f} times "
            f"{counted[layout]['distinct']:,} (one by one {counted[layout]['one_by_one']:,})"
            for layout in ("exact", "standalone")
        )
        lines += [
            "",
            f"Tokens computed for {counted['subsets']} subsets of {counted['per_draft']} passages, "
            f"beside the distinct ones: {shares}; `{counted['command']}`.",
        ]
    return "\n".join(lines)


READINGS = {
    "best": "the passage the drafter ranks first",
    "best and sentences": "that, and the sentences most similar to the question",
    "best two": "the two it ranks first",
    "best and linked": "the first, and of those linked to it the next",
    "best of few and linked": "the same among the five most similar",
    "nearest": "the passage most similar to the question",
    "nearest two": "the two most similar",
    "nearest and linked": "the most similar, and of those linked to it the next",
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
