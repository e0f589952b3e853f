"""Choose which drafts are the answer as they stand, on the tune halves.

Reads what `specrag eval SETS --method drafter,standard --half tune` wrote.

Questions give `draft_weights`: a logistic regression on the features of drafts that no verifier
judged (`answering.confidence.DRAFT_FEATURES`), right or wrong, of every draft with an answer.
`questions_above` is then the lowest confidence from which on the best draft may be taken, and
standard RAG's answer below it, so that no fewer questions are answered right than by standard RAG;
the confidences are those of weights fitted on other questions. Claims give `claims_above`: the
confidence with which most of them are judged right in the same way, of equally good ones the
highest.

    python benchmarks/calibrate_drafts.py RUN --drafter FILE --verifier FILE [--write]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibrate import LEAST, Key, Rows, Runs, fitted, keep, supported, verdict_of

from specrag_native.answering.confidence import DRAFT_FEATURES, draft_features

CLAIM_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(10, 20))
QUESTION_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(4, 20))

Judged = tuple[float, float, float]
"""How sure the drafter is of its answer, how right that is, and how right standard RAG is."""


def right(judged: Sequence[Judged], above: float) -> float:
    """Return how many answers are right if drafts of such a confidence are taken."""
    return sum(own if sure >= above else read for sure, own, read in judged)


def facts_of(judged: Sequence[Judged], above: float) -> dict[str, Any]:
    """Return what a threshold would have come to."""
    return {
        "questions": len(judged),
        "by_draft": sum(sure >= above for sure, _, _ in judged),
        "right": right(judged, above),
        "standard_right": sum(read for _, _, read in judged),
    }


def claims_fit(runs: Runs) -> dict[str, Any]:
    """Return the confidence from which on the drafter's judgement of a claim is best taken.

    Nothing where there are too few claims; ``None`` where standard RAG is as often right without.
    """
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
    if len(judged) < LEAST:
        return {}
    best = max(CLAIM_THRESHOLDS, key=lambda above: (right(judged, above), above))
    if right(judged, best) <= right(judged, float("inf")):
        return {"claims_above": None}
    return {"claims_above": best, "claims": facts_of(judged, best)}


def questions_fit(runs: Runs) -> dict[str, Any]:
    """Return the weights of a draft's features, and the confidence from which on it is taken.

    Nothing where there are too few drafts; ``questions_above`` is ``None`` where no threshold is as
    good as standard RAG.
    """
    rows = Rows(DRAFT_FEATURES)
    drafts: dict[Key, list[tuple[Key, float, float]]] = {}
    for header, record in runs.drafted():
        if record.task != "qa":
            continue
        known = [d for d in record.drafts if not d.unknown]
        verdicts = [verdict_of(d).draft for d in record.drafts]
        kept = drafts.setdefault((record.dataset, record.id), [])
        for i, (draft, made) in enumerate(zip(record.drafts, verdicts, strict=True)):
            if draft in known:
                key = (record.dataset, record.id, header.config_hash, i)
                rows.add(key, draft_features(made, verdicts), draft.grade.right > 0)
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
    found: dict[str, Any] = {"draft_weights": weights, "unverified_drafts": facts}
    if len(judged) < LEAST:
        return found
    least = right(judged, float("inf"))
    good = [above for above in QUESTION_THRESHOLDS if right(judged, above) >= least]
    if not good:
        return {**found, "questions_above": None}
    return {**found, "questions_above": good[0], "questions": facts_of(judged, good[0])}


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
    if not found:
        parser.error(f"{args.run} has too few drafts of {args.drafter} on the {args.half} half")
    keep(args.drafter, args.verifier, found, write=args.write)


if __name__ == "__main__":
    main()
