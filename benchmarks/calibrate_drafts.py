"""Choose which drafts are the answer as they stand, on the tune halves.

Reads what `specrag eval SETS --method drafter,standard --half tune` wrote.

Questions give `draft_weights`: a logistic regression on the features of drafts that no verifier
judged (`answering.confidence.DRAFT_FEATURES`), right or wrong, of every draft with an answer; the
confidences below are those of weights fitted on other questions.

`questions_above` and `claims_above` are the lowest confidences from which on the best draft may be
taken, and standard RAG's answer below, so that no fewer are right than by standard RAG with that
threshold, and with none above it two fewer: with few questions a single one may come out even by
chance, or short. ``null`` where there is none.

What `specrag eval SETS --method speculative --half tune --set repair=rationales,pair
--set accept_above=1 --set questions_above=1` wrote gives `rationales_above` likewise, the
probability from which on an answer is taken that the verifier has from the rationales where no
draft is one; and `repair` begins with `rationales` where there is such a threshold. And it gives
`accept_above`: the verifier reads on behind an answer from two passages where its probability is so
low that standard RAG, which reads everything, is right on one more of ten of these questions; 0
where that is so nowhere, since to read everything takes longer than all that came before.

What `specrag eval SETS --method speculative --half tune
--set repair=rationales,short,best,pair,draft,subset,all --set best_above=1` wrote gives
`best_above`: the lowest probability from which on the answer from one passage may be taken, and
no fewer are right than where every such question has two passages read; the lower, the fewer
tokens.

    python benchmarks/calibrate_drafts.py RUN --drafter FILE --verifier FILE [--write]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibrate import (
    LEAST,
    Key,
    Rows,
    Runs,
    answered,
    fitted,
    keep,
    kept_of,
    supported,
    surest,
    was_found,
)

from specrag_native.answering.confidence import DRAFT_FEATURES, draft_features
from specrag_native.answering.repair import told_otherwise
from specrag_native.evaluation.records import Record

CLAIM_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(10, 20))
"""From one half on, since a claim is one of two things."""
QUESTION_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(8, 20))
RATIONALE_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(16, 20))
"""Lower ones, of these two, lost nothing on the tune halves but seemed to on others
(docs/settings.md)."""

BEST_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(10, 20))
"""From one half on: less is a guess, and the second passage is there to be read."""

SLACK = 1.0
"""Questions that may be lost at a higher threshold than the chosen one."""
WORTH = 0.1
"""Share of questions that must come out right by reading on for that to be worth its time."""
ACCEPT_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))

Judged = tuple[float, float, float]
"""How sure an answer is, how right it is, and how right standard RAG is instead."""


def chosen(judged: Sequence[Judged], thresholds: Sequence[float], what: str) -> dict[str, Any]:
    """Return the lowest threshold at no loss and what it came to; nothing of too few answers."""
    if len(judged) < LEAST:
        return {}
    standard = sum(read for _, _, read in judged)
    found: dict[str, Any] = {f"{what}_above": None}
    for above in sorted(thresholds, reverse=True):
        taken = sum(sure >= above for sure, _, _ in judged)
        right = sum(own if sure >= above else read for sure, own, read in judged)
        if right < standard - SLACK:
            break
        if taken and right >= standard:
            facts = {"taken": taken, "right": right, "standard_right": standard}
            found = {f"{what}_above": above, what: {"questions": len(judged), **facts}}
    return found


def claims_fit(runs: Runs) -> dict[str, Any]:
    """Return the confidence from which on the drafter's judgement of a claim is taken."""
    standard = runs.standard()
    judged = [
        (
            0.0 if record.abstained else record.confidence,
            float(record.grade.right > 0),
            standard[record.dataset, record.id],
        )
        for _, record in runs.drafted()
        if record.task == "claim" and (record.dataset, record.id) in standard
    ]
    return chosen(judged, CLAIM_THRESHOLDS, "claims")


def questions_fit(runs: Runs) -> dict[str, Any]:
    """Return the weights of a draft's features, and the confidence from which on it is taken.

    Nothing where there are too few drafts.
    """
    rows = Rows(DRAFT_FEATURES)
    drafts: dict[Key, list[tuple[Key, float, float]]] = {}
    for header, record in runs.drafted():
        if record.task != "qa":
            continue
        kept = drafts.setdefault((record.dataset, record.id), [])
        for i, (draft, one, made) in enumerate(answered(record)):
            key = (record.dataset, record.id, header.config_hash, i)
            rows.add(key, draft_features(one, made), draft.grade.right > 0)
            kept.append((key, supported(draft), float(draft.grade.right > 0)))
    if not rows.folds:
        return {}
    weights, predicted, facts = fitted(rows)
    standard = runs.standard()
    judged: list[Judged] = []
    for question, of_question in drafts.items():
        if question in standard:
            sure, own = max(
                ((predicted[key] * share, own) for key, share, own in of_question),
                default=(0.0, 0.0),
            )
            judged.append((sure, own, standard[question]))
    of_questions = chosen(judged, QUESTION_THRESHOLDS, "questions")
    return {"draft_weights": weights, "unverified_drafts": facts, **of_questions}


NEEDED = {"draft_weights", "questions_above", "repair", "repair_below", "accept_above"}
"""What must be known of a pair before its rationales can be judged."""


def rationales_fit(runs: Runs, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether the verifier reads rationales first, and the least probability that it needs.

    Args:
        runs: those with ``rationales`` as the first step count.
        settings: those of the pair, by which drafts are the answer.
    """
    judged: list[Judged] = []
    for record, standard in _left_to_the_verifier(runs, settings):
        first = record.repairs[0]
        told = first["step"] == "rationales" and was_found(first)
        sure = first["probability"] if told and _has_enough(record, settings) else -1.0
        judged.append((sure, float(first["right"] > 0), standard))
    fit = chosen(judged, RATIONALE_THRESHOLDS, "rationales")
    if not fit:
        return {}
    first_of_all = [] if fit["rationales_above"] is None else ["rationales"]
    others = [s for s in settings["repair"].split(",") if s != "rationales"]
    return {**fit, **_with_steps([*first_of_all, *others], settings)}


def readings_fit(runs: Runs, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the probability under which an answer from two passages is worth reading on for.

    Args:
        runs: those with ``rationales`` as the first step and ``pair`` as another count.
        settings: those of the pair, by which drafts and rationales are the answer.
    """
    above = settings.get("rationales_above")
    judged: list[Judged] = []
    for record, standard in _left_to_the_verifier(runs, settings):
        steps = {s["step"]: s for s in record.repairs if was_found(s)}
        first, read = steps.get("rationales"), steps.get("pair")
        told = first is not None and _has_enough(record, settings)
        sure = told and above is not None and first["probability"] >= above
        if read is not None and not sure:
            judged.append((read["probability"], float(read["right"] > 0), standard))
    if len(judged) < LEAST:
        return {}
    least = 0.0
    for below in ACCEPT_THRESHOLDS:
        unsure = [j for j in judged if j[0] < below]
        gained = sum(read - own for _, own, read in unsure)
        if len(unsure) >= LEAST and gained >= WORTH * len(unsure):
            least = below
    facts = {
        "questions": len(judged),
        "right": sum(own for _, own, _ in judged),
        "standard_right": sum(read for _, _, read in judged),
    }
    return {"accept_above": least, "unsettled": facts}


def best_fit(runs: Runs, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether the best passage is read alone before two, and the least probability of that.

    Args:
        runs: those with ``best`` among their steps and a ``best_above`` of 1 count, so that what it
            is compared with is what they answered in the end.
        settings: those of the pair; ``best`` comes before the ``pair`` of their ``repair``.
    """
    judged: list[Judged] = []
    for header, record in runs.records():
        alone = next((s for s in record.repairs if s["step"] == "best"), None)
        if alone is None or header.config.get("best_above") != 1 or alone["decided"]:
            continue
        taken = was_found(alone) and alone["confidence"] >= header.config["abstain_below"]
        told = ((s["step"], s["answer"]) for s in record.repairs)
        taken = taken and not told_otherwise(alone["answer"], told)
        sure = alone["probability"] if taken else -1.0
        judged.append((sure, float(alone["right"] > 0), float(record.grade.right > 0)))
    if len(judged) < LEAST:
        return {}
    others = [s for s in settings["repair"].split(",") if s != "best"]
    two = sum(read for _, _, read in judged)
    for above in BEST_THRESHOLDS:
        taken = sum(sure >= above for sure, _, _ in judged)
        right = sum(own if sure >= above else read for sure, own, read in judged)
        if taken and right >= two:
            facts = {"questions": len(judged), "taken": taken, "right": right, "two_right": two}
            others.insert(others.index("pair"), "best")
            return {"best_above": above, "best": facts, **_with_steps(others, settings)}
    return {"best_above": None, **_with_steps(others, settings)}


def _with_steps(steps: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return steps of ``repair`` with the settings that are chosen together with them."""
    kept = {name: settings[name] for name in ("repair_below", "accept_above")}
    return {"repair": ",".join(steps), **kept}


def _left_to_the_verifier(
    runs: Runs, settings: Mapping[str, Any]
) -> Iterator[tuple[Record, float]]:
    """Yield what no draft answers of the runs that begin with ``rationales``.

    With how right standard RAG is, which must have answered it too.
    """
    standard = runs.standard()
    for header, record in runs.records():
        question = (record.dataset, record.id)
        if not header.config["repair"].startswith("rationales") or question not in standard:
            continue
        if record.repairs and not _decides(record, settings):
            yield record, standard[question]


def _has_enough(record: Record, settings: Mapping[str, Any]) -> bool:
    """Whether there are drafts enough for their rationales to be read."""
    return len(answered(record)) >= settings.get("min_rationales", 1)


def _decides(record: Record, settings: Mapping[str, Any]) -> bool:
    """Whether a draft of a stored question would be the answer; one of a claim would have been."""
    return record.task == "qa" and (
        surest(record, settings["draft_weights"]) >= settings["questions_above"]
    )


def main() -> None:
    """Choose, print what came out, and write it beside the catalogue when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, help="folder of specrag eval")
    parser.add_argument("--drafter", required=True, help="file name of the drafter")
    parser.add_argument("--verifier", required=True, help="file name of the verifier")
    parser.add_argument("--half", default="tune", help="half of the sets that is fitted on")
    parser.add_argument("--write", action="store_true", help="keep it in models/calibration.json")
    args = parser.parse_args()
    runs = Runs(args.run, args.half, args.drafter, args.verifier, "")
    found = {**questions_fit(runs), **claims_fit(runs)}
    settings = {**kept_of({"drafter": args.drafter, "verifier": args.verifier}), **found}
    if {name for name, value in settings.items() if value is not None} >= NEEDED:
        found |= rationales_fit(runs, settings)
        found |= readings_fit(runs, settings | found)
        if "pair" in settings["repair"].split(","):
            found |= best_fit(runs, settings | found)
    if not found:
        parser.error(f"{args.run} has too few drafts of {args.drafter} on the {args.half} half")
    keep(args.drafter, args.verifier, found, write=args.write)


if __name__ == "__main__":
    main()
