"""Fit the confidence of a pair of models on the tune halves, and choose when to repair.

Reads what `specrag eval ... --method speculative --set repair=off --half tune` wrote: one chosen
draft per question with all scores, right or wrong. A logistic regression on the features of
`specrag_native.confidence` gives the weights; folds over questions tell how well it predicts
answers it was not fitted on. `repair_below` is the lowest confidence from which on at least the
wanted share of the answers is right, by those held-out predictions.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from specrag_native.calibration import path as calibration_path
from specrag_native.confidence import FEATURES, features
from specrag_native.evaluation.offline import total
from specrag_native.evaluation.results import DraftRecord, read_folder
from specrag_native.evaluation.summary import ece
from specrag_native.types import Draft, LogprobSpan, Scores, Subset, Verdict

FOLDS = 10
LEAST = 10
"""Fewest answers that a threshold may rest on."""
STRENGTH = 0.1
"""Inverse of the regularisation, on standardised features."""


def verdict_of(draft: DraftRecord) -> Verdict:
    """Return a stored draft as the verdict it was."""
    made = Draft(
        draft.answer,
        draft.rationale or "",
        Subset(()),
        draft.answer_logprob,
        draft.rationale_logprob or LogprobSpan(0.0, 0),
        draft.unknown,
        draft.unknown_logprob,
    )
    return Verdict(made, Scores(0.0), draft.verified, draft.support, draft.contained)


def rows_of(
    run: Path, half: str, drafter: str
) -> tuple[list[tuple[float, ...]], list[float], dict[str, int]]:
    """Return features and correctness of the chosen draft of every question, and sets' sizes."""
    from specrag_native.evaluation.datasets import half_of

    x: list[tuple[float, ...]] = []
    y: list[float] = []
    sets: dict[str, int] = {}
    for results in read_folder(run):
        if results.header.variant.split(" ")[0] != "speculative":
            continue
        if results.header.models["drafter"]["file"] != drafter:
            continue
        settings = results.header.config
        if settings["repair"] != "off" or settings.get("verify", "always") != "always":
            continue
        for record in results.records.values():
            verified = [d for d in record.drafts if d.verified]
            if record.error is not None or not verified or half_of(record.id) != half:
                continue
            winner = max(verified, key=lambda d: total(d, settings))
            verdicts = [verdict_of(d) for d in record.drafts]
            found = features(verdict_of(winner), verdicts)
            if found is not None:
                x.append(found)
                y.append(float(winner.grade.right > 0))
                sets[record.dataset] = sets.get(record.dataset, 0) + 1
    return x, y, sets


def fit(x: Any, y: Any) -> list[float]:
    """Return logistic weights in units of the features as they are."""
    mean, scale = x[:, 1:].mean(axis=0), x[:, 1:].std(axis=0) + 1e-6
    model = LogisticRegression(C=STRENGTH).fit((x[:, 1:] - mean) / scale, y)
    weights = model.coef_[0] / scale
    return [float(model.intercept_[0] - (weights * mean).sum()), *map(float, weights)]


def predict(weights: Sequence[float], x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x @ np.asarray(weights), -50, 50)))


def threshold(predicted: Any, right: Any, wanted: float) -> float:
    """Return the lowest confidence from which on ``wanted`` of the answers are right.

    1, which means always to repair, where fewer than :data:`LEAST` answers are above any such one.
    """
    order = np.argsort(-predicted)
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.nonzero(shares >= wanted)[0]
    good = good[good + 1 >= LEAST]
    return math.floor(100 * float(predicted[order][good[-1]])) / 100 if len(good) else 1.0


def main() -> None:
    """Fit, print what came out, and write it beside the catalogue when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, help="folder of specrag eval")
    parser.add_argument("--drafter", required=True, help="file name of the drafter")
    parser.add_argument("--verifier", required=True, help="file name of the verifier")
    parser.add_argument("--accuracy", type=float, default=0.8, help="wanted above repair_below")
    parser.add_argument("--half", default="tune", help="half of the sets that is fitted on")
    parser.add_argument("--write", action="store_true", help="keep it in models/calibration.json")
    args = parser.parse_args()
    raw_x, raw_y, sets = rows_of(args.run, args.half, args.drafter)
    if len(raw_y) < 2 * FOLDS or len(set(raw_y)) < 2:
        parser.error(f"{len(raw_y)} answers with both outcomes are too few to fit on")
    x, y = np.asarray(raw_x), np.asarray(raw_y)
    held_out = np.zeros(len(y))
    for train, test in KFold(FOLDS, shuffle=True, random_state=0).split(x):
        held_out[test] = predict(fit(x[train], y[train]), x[test])
    weights = fit(x, y)
    below = threshold(held_out, y, args.accuracy)
    found = {
        "drafter": args.drafter,
        "verifier": args.verifier,
        "confidence_weights": [round(w, 4) for w in weights],
        "repair_below": below,
        "fitted_on": {"half": args.half, "questions": len(y), "right": int(y.sum()), "sets": sets},
        "held_out": {
            "ece": round(ece(list(zip(held_out.tolist(), y.tolist(), strict=True))), 4),
            "ece_of_belief": round(
                ece([(1 / (1 + math.exp(-a)), b) for a, b in zip(x[:, 1], y, strict=True)]), 4
            ),
            "share_above": round(float((held_out >= below).mean()), 3),
            "accuracy_above": round(float(y[held_out >= below].mean()), 3)
            if (held_out >= below).any()
            else None,
        },
    }
    print(json.dumps({"features": FEATURES, **found}, indent=1))
    if args.write:
        path = calibration_path()
        pairs = json.loads(path.read_text())["pairs"] if path.exists() else []
        same = (args.drafter, args.verifier)
        kept = [p for p in pairs if (p["drafter"], p["verifier"]) != same]
        path.write_text(json.dumps({"pairs": [*kept, found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
