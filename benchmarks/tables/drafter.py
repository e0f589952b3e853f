"""How well drafters draft, and tell passages with the answer from others."""

from __future__ import annotations

import json
import math
from statistics import fmean
from typing import Any

from stored import RESULTS, read_rows

from specrag_native.evaluation.intervals import bootstrap_mean
from specrag_native.evaluation.records import Record
from specrag_native.evaluation.results import ResultSet, read_folder

ZERO_SHOT = RESULTS / "zero-shot"
SHIPPED = "71adc89bc4d0"
WEIGHTS = {
    "20439883ff20": "first sitting",
    "f171f2d1502c": "second sitting",
    "a927d2a6b7c8": "third sitting",
    "2d13ca16fd7a": "third sitting",
    "aaa434214388": "mean of the second and third",
    "3a2e2e83a6eb": "fourth sitting",
    SHIPPED: "fifth sitting, answer first, shipped",
    "6b93b7098f05": "fourth sitting",
    "076579bd8f3e": "sixth sitting, four times as long",
}
"""What weights are called, by the beginning of their file's sha256."""
Row = dict[str, Any]
_COMPARED = 20
"""Of each set, the first questions, which every drafter but the first has drafted."""


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
    rows = [r for found in _drafted_alone().values() for r in found[:_COMPARED]]
    lines = [
        "| weights | questions | some draft right, where a passage holds the answer "
        "| drafts right, where theirs does | its best passage holds the answer | its best two "
        "| best by cosine | best two by cosine | any passage "
        "| unknown at 0.95: precision, recall | at 0.8 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
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

    def unknown(said: list[tuple[float, bool]], above: float) -> str:
        right = [not holds for none, holds in said if none >= above]
        recalled = [none >= above for none, holds in said if not holds]
        return f"{share(right) if right else '-'}, {share(recalled)}"

    def _all(row: dict[str, Any]) -> range:
        return range(len(row["holds"]))

    for digest in dict.fromkeys(r["sha256"] for r in rows):
        here = [r for r in rows if r["sha256"] == digest]
        said = [(math.exp(r["none"][i]), r["holds"][i]) for r in here for i in _all(r)]
        some = [any(r["right"]) for r in here if any(r["holds"])]
        each = [r["right"][i] for r in here for i in _all(r) if r["holds"][i]]
        lines.append(
            f"| {WEIGHTS.get(digest, digest)} (`{digest}`) | {len(here)} "
            f"| {share(some)} of {len(some)} | {share(each)} of {len(each)} "
            f"| {best(here, 'none', 1, 1)} | {best(here, 'none', 1, 2)} "
            f"| {best(here, 'cosine', -1, 1)} | {best(here, 'cosine', -1, 2)} "
            f"| {share([any(r['holds']) for r in here])} "
            f"| {unknown(said, 0.95)} | {unknown(said, 0.8)} |"
        )
    sets = dict.fromkeys(r["set"] for r in rows)
    lines += [
        "",
        f"The first questions of the {rows[0]['half']} halves of {', '.join(sets)}; every passage "
        "drafted alone. A passage is best where the drafter is least inclined to begin with what "
        "says that there is no evidence; at 0.95, 0.8: of that probability."
        " `python benchmarks/bench_evidence.py SETS --drafter FILE --limit 20`.",
    ]
    return "\n".join(lines)


def _drafted_alone(drafts: int = 1, half: str = "tune") -> dict[tuple[str, str], list[Row]]:
    """Return what drafters made of each passage alone, by their digest and the set.

    ``drafts``: of each passage.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows(RESULTS / "evidence.jsonl"):
        if (row.get("drafts", 1), row["half"]) == (drafts, half):
            found.setdefault((row["sha256"], row["set"]), []).append(row)
    return found


def evidence_sets_table() -> str:
    """Return the Markdown of what the shipped drafter draws out of passages, set by set."""
    lines = [
        "| set | questions | some draft right, where a passage holds the answer [95%] "
        "| with a second draft of each passage | drafts right, where theirs does |",
        "|---|---|---|---|---|",
    ]

    def shown(right: list[bool]) -> str:
        found = bootstrap_mean([float(x) for x in right])
        low, high = 100 * found.low, 100 * found.high
        return f"{100 * found.mean:.0f}% of {found.n} [{low:.0f}, {high:.0f}]"

    def line(name: str, rows: list[Row]) -> None:
        held = [r for r in rows if any(r["holds"])]
        each = [r["right"][i] for r in held for i, holds in enumerate(r["holds"]) if holds]
        some = shown([any(r["right"]) for r in held])
        twice = shown([any(r["right_each"]) for r in held])
        share = f"{100 * sum(each) / len(each):.0f}% of {len(each)}"
        lines.append(f"| {name} | {len(rows)} | {some} | {twice} | {share} |")

    for half in ("tune", "report"):
        drafted = _drafted_alone(2, half)
        sets = {name: rows for (digest, name), rows in drafted.items() if digest == SHIPPED}
        for name, rows in sets.items():
            line(f"{name}, {half} half", rows)
        line(
            f"the first three together, {half} halves",
            [r for name, rows in sets.items() if name != "hotpotqa-dev" for r in rows],
        )
        line(f"**all, {half} halves**", [r for rows in sets.values() for r in rows])
    lines += [
        "",
        "As above, the shipped weights; hotpotqa's questions take two passages and a draft sees "
        "one. The second draft of a passage begins with the next likeliest token, so its answer is "
        "another (`--set drafts_per_subset=2`). `python benchmarks/bench_evidence.py SETS --half "
        "tune --limit 60 --drafts 2`, and with `--half report`.",
    ]
    return "\n".join(lines)


def fits_table(sitting: int) -> str:
    """Return the Markdown of the fits of one lent GPU, each measured there in the same way."""
    stored = json.loads((RESULTS / "fits.json").read_text())["sittings"][sitting]
    lines = [
        "| run | steps | tokens | seconds | loss | some draft right | drafts right "
        "| best passage holds | unknown: area under ROC | recall at precision 80% |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in stored["runs"]:
        shares = [r["some_right"], r["drafts_right"], r["best_holds"]]
        recall = r["unknown_recall_at_80"]
        lines.append(
            f"| {r['run']} | {r['steps']} | {r['tokens'] / 1e6:.1f}M "
            f"| {'-' if r['seconds'] is None else round(r['seconds'])} "
            f"| {r['loss']:.3f} | {' | '.join(f'{100 * x:.0f}%' for x in shares)} "
            f"| {r['auc']:.2f} | {'-' if recall is None else f'{100 * recall:.0f}%'} |"
        )
    first, machine = stored["runs"][0], stored["machine"]
    lines += [
        "",
        f"Rank 64 but where it says otherwise, one {machine['gpu']}, bfloat16. Loss: of "
        f"{stored['held_back']} held-back examples. The others: of {first['questions']} questions "
        "of the tuning halves of triviaqa-dpr, nq-dpr, popqa-active and hotpotqa, every passage "
        "drafted alone, greedily, no draft allowed to begin with what says that there is no "
        f"evidence; some draft right: of the {first['answerable']} questions with a passage that "
        "holds the answer. Measured on the GPU in bfloat16 before anything was quantised.",
    ]
    return "\n".join(lines)


def checks_table() -> str:
    """Return the Markdown of what `specrag train check` found of several weights."""
    stored = json.loads((RESULTS / "fits.json").read_text())["checks"]
    lines = [
        "| weights | loss | right | unknown: recall | precision | tokens per rationale "
        "| malformed |",
        "|---|---|---|---|---|---|---|",
    ]
    for c in stored:
        lines.append(
            f"| {WEIGHTS[c['sha256']]}, {c['type']} | {c['loss']:.3f} | {100 * c['right']:.0f}% "
            f"| {100 * c['unknown_recall']:.0f}% | {100 * c['unknown_precision']:.0f}% "
            f"| {c['rationale_tokens']:.0f} | {100 * c['malformed']:.0f}% |"
        )
    c = stored[0]
    lines += [
        "",
        f"The same {c['examples']} held-back examples of the third sitting, {c['answerable']} of "
        "which can be answered from their subset. `specrag train check MODEL "
        "examples-check.jsonl`.",
    ]
    return "\n".join(lines)


def alone_table() -> str:
    """Return the Markdown of the drafter alone beside its untrained base, on the same questions."""
    if not ZERO_SHOT.exists():
        return "Not measured yet."
    trained = {r.header.dataset: r for r in _alone(read_folder(RESULTS / "eval"))}
    untrained = _alone(read_folder(ZERO_SHOT))
    layouts = list(dict.fromkeys(_layout(r) for r in untrained))
    lines = [
        f"| set | questions | trained | {' | '.join(f'untrained, {x}' for x in layouts)} |",
        f"|---|---|---|{'---|' * len(layouts)}",
    ]
    together: list[list[Record]] = [[] for _ in range(1 + len(layouts))]
    for dataset in sorted({r.header.dataset for r in untrained} & trained.keys()):
        beside = [
            next(r for r in untrained if r.header.dataset == dataset and _layout(r) == layout)
            for layout in layouts
        ]
        every = [trained[dataset], *beside]
        ids = set.intersection(*(set(r.records) for r in every))
        found = [[r.records[i] for i in ids] for r in every]
        lines.append(f"| {dataset} | {len(ids)} | {' | '.join(map(_graded, found))} |")
        for kept, here in zip(together, found, strict=True):
            kept += here
    n = len(together[0])
    lines += [
        f"| **together** | {n} | {' | '.join(map(_graded, together))} |",
        "",
        "Right (exactly; mean words of an answer): the draft with the highest score of the "
        "drafter, no verifier and no repair. Answers of many words hold an accepted one more "
        "easily. The first "
        "questions of the reporting halves. The trained drafter with its fitted settings, as in "
        "docs/results.md; `specrag eval SETS --half report --limit 30 --method drafter --drafter "
        "smollm2-135m-instruct`, as it is and with `--set rerank=true --set draft_order=named "
        "--set n_drafts=3 --set passages_per_draft=1 --set layout=standalone`.",
    ]
    return "\n".join(lines)


def _graded(records: list[Record]) -> str:
    """Return how many answers are right, how many exactly, and how long they are."""
    grades = [r.grade for r in records]
    right, exact = (100 * fmean(getattr(g, k) for g in grades) for k in ("right", "exact"))
    return f"{right:.1f}% ({exact:.1f}%; {fmean(g.words for g in grades):.1f})"


def _alone(results: list[ResultSet]) -> list[ResultSet]:
    return [r for r in results if r.header.method == "drafter"]


def _layout(result: ResultSet) -> str:
    config = result.header.config
    k = config["passages_per_draft"] or 2
    return f"{config['n_drafts']} drafts of {k} passage{'s' if k > 1 else ''}"
