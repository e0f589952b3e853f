"""Seconds and right answers of each method, by workload."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from statistics import fmean, median
from typing import Any

from stored import RESULTS, read_rows

from specrag_native.evaluation.intervals import paired_difference

WORKLOADS = {
    "hotpotqa": "hotpotqa-dev, 10 passages",
    "triviaqa": "triviaqa-dpr-dev, 5 passages",
    "musique": "musique-dev, 15 passages",
}
METHODS = {
    "standard": "standard RAG, our engine",
    "llama-cpp-standard": "standard RAG, llama_cpp.Llama",
    "standard-nearest": "standard RAG, only the two passages nearest to the question",
    "cold": "Speculative RAG, nothing cached",
    "cached": "Speculative RAG, passages cached",
    "standard-cached": "standard RAG, passages cached and not seeing each other",
}
NAIVE = {
    "cold": METHODS["cold"],
    "llama-cpp-documented": "Speculative RAG, llama_cpp.Llama, one draft after another, its "
    "documented `logprobs`",
    "llama-cpp-documented-untuned": "the same, with the drafter's base, not trained to draft",
    "llama-cpp-speculative": "Speculative RAG, llama_cpp.Llama, one draft after another, its "
    "logits read by numpy",
    "llama-cpp-speculative-untuned": "the same, with the drafter's base, not trained to draft",
    "paper": "the same with our drafter, on our engine",
}
"""Against what a user would write after the paper."""
_STAGES = ("draft", "verify", "repair")
_TOKENS = ("prefilled", "decoded")

Row = Mapping[str, Any]
Answered = Mapping[str, Row]
"""The rows of one method, by question."""


def read_latest(
    methods: Collection[str] = tuple(METHODS), *, beside: str = "standard"
) -> dict[str, dict[str, Answered]]:
    """Return the rows by workload and method: those measured as the last of ``beside`` was.

    Methods are compared as they were run together: by one machine, with the same settings.
    """
    rows = read_rows(RESULTS / "speed.jsonl")
    found: dict[str, dict[str, Answered]] = {}
    for workload in WORKLOADS:
        here = [r for r in rows if r["workload"] == workload]
        last = next((r for r in reversed(here) if r["method"] == beside), None)
        if last is None:
            continue
        here = [r for r in here if _made_by(r) == _made_by(last)]
        by_method = {m: {r["id"]: r for r in here if r["method"] == m} for m in methods}
        found[workload] = {m: answered for m, answered in by_method.items() if answered}
    return found


def _made_by(row: Row) -> tuple[Any, ...]:
    return row["machine"]["cpu"], row.get("settings"), row.get("models")


def naive_table() -> str:
    """Return the Markdown of Speculative RAG beside what a user would write after the paper.

    Each machine on which the drafter's base was measured last has rows of its own.
    """
    runs = [read_latest(NAIVE, beside=name) for name in NAIVE if name.endswith("untuned")]
    groups = []
    for workload, group in (pair for run in runs for pair in run.items()):
        if (workload, group) not in groups:
            groups.append((workload, group))
    if not groups:
        return "Not measured yet."
    lines = [
        "| workload | method | n | seconds, median (range) | times as long as ours | right "
        "| draft, verify, repair s | drafter tokens | verifier tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    described = []
    for workload, by_method in groups:
        ours = by_method.get("cold", {})
        machines = [r["machine"] for answered in by_method.values() for r in answered.values()]
        described.append(_described(machines))
        where = f"{WORKLOADS[workload]}, {machines[-1]['cpu'].split('(')[0].strip()}"
        for method, answered in by_method.items():
            both = [(r["seconds"], ours[i]["seconds"]) for i, r in answered.items() if i in ours]
            cells = _cells(answered, f"{_times(both):.1f}" if both else "not known")
            lines.append(f"| {where} | {NAIVE[method]} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{'. '.join(described)}. `python benchmarks/bench_speed.py hotpotqa --questions "
            f"SET.jsonl.gz --limit N --methods {','.join(NAIVE)}`: subsets of several passages as "
            "in the paper, every draft written and scored, `logits_all` for the scores, no repair. "
            "A method with fewer questions than ours is compared on those.",
        ]
    )


def speed_table() -> str:
    """Return the Markdown of seconds per question by workload and method."""
    found = read_latest()
    if not found:
        return "Not measured yet."
    lines = [
        "| workload | method | n | seconds, median (range) | standard RAG takes (median of ratios) "
        "| right | draft, verify, repair s | drafter tokens | verifier tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for workload, by_method in found.items():
        for method, answered in by_method.items():
            cells = _cells(answered, _factor(answered, by_method.get("standard", {})))
            lines.append(f"| {WORKLOADS[workload]} | {METHODS[method]} | {' | '.join(cells)} |")
    machines = [r["machine"] for m in found.values() for a in m.values() for r in a.values()]
    return "\n".join(
        [
            *lines,
            "",
            f"{_described(machines)}, the same questions of the reporting halves, passages, "
            "verifier and threads for every method; `python benchmarks/bench_speed.py WORKLOAD "
            "--questions SET.jsonl.gz --limit N`, with the settings fitted for the two models. A "
            "method with fewer questions than others is compared on those. Tokens: computed in "
            "prefill + written, means. Right: an accepted answer stands in the response.",
            "",
            _accuracy(found),
        ]
    )


def _factor(answered: Answered, standard: Answered) -> str:
    """Return how many times as long standard RAG takes, by medians and by single questions."""
    both = [(standard[i]["seconds"], r["seconds"]) for i, r in answered.items() if i in standard]
    if not both:
        return "not known"
    return f"{_times(both):.2f}x ({median(s / r for s, r in both):.2f}x) as long"


def _times(pairs: list[tuple[float, float]]) -> float:
    """Return how many times as long the first of some pairs takes, by medians."""
    return median(a for a, _ in pairs) / median(b for _, b in pairs)


def _cells(answered: Answered, factor: str) -> list[str]:
    """Return what one line of a table says of a method's answers; ``factor`` is its third cell."""
    rows = list(answered.values())
    seconds = sorted(r["seconds"] for r in rows)
    tokens = [
        [fmean(r["usage"].get(role, {}).get(kind, 0) for r in rows) for kind in _TOKENS]
        for role in ("drafter", "verifier")
    ]
    return [
        str(len(rows)),
        f"{median(seconds):.1f} ({seconds[0]:.1f}-{seconds[-1]:.1f})",
        factor,
        f"{100 * fmean(r['right'] for r in rows):.0f}%",
        ", ".join(f"{fmean(r['stages'].get(stage, 0.0) for r in rows):.1f}" for stage in _STAGES),
        *(" + ".join(f"{n:.0f}" for n in of_role) for of_role in tokens),
    ]


def _described(machines: list[Mapping[str, Any]]) -> str:
    """Return the machine, and the code that ran with what was tuned on it."""
    last = machines[-1]
    commits: dict[str, dict[str, None]] = {}
    for machine in machines:
        commits.setdefault(tuned(machine), {})[machine["commit"]] = None
    runs = "; ".join(f"{chosen}commit {', '.join(names)}" for chosen, names in commits.items())
    return f"{last['cpu']}, {last['threads']} threads, {runs}"


def tuned(machine: Mapping[str, Any]) -> str:
    """Return what `specrag tune` had chosen there; empty where it had not run."""
    chosen = [
        f"{name} {value} for the {role}"
        for role, settings in machine.get("tuned", {}).items()
        for name, value in settings.items()
    ]
    return f"after `specrag tune` ({', '.join(chosen)}), " if chosen else ""


def _accuracy(found: Mapping[str, Mapping[str, Answered]]) -> str:
    """Return how often Speculative RAG is right where standard RAG is, with an interval."""
    pairs = [
        (by_method["cold"][i]["right"], row["right"])
        for by_method in found.values()
        if "cold" in by_method
        for i, row in by_method.get("standard", {}).items()
        if i in by_method["cold"]
    ]
    if not pairs:
        return "Accuracy was not compared yet."
    ours, theirs = zip(*pairs, strict=True)
    gap = paired_difference(ours, theirs)
    return (
        f"On the {len(pairs)} questions that both answered, Speculative RAG with nothing cached is "
        f"right on {sum(ours):.0f} and standard RAG on {sum(theirs):.0f}: it wins "
        f"{sum(a > b for a, b in pairs)} and loses {sum(a < b for a, b in pairs)}, a difference of "
        f"{100 * gap.mean:+.1f} points with a 95% interval of {100 * gap.low:+.1f} to "
        f"{100 * gap.high:+.1f}."
    )
