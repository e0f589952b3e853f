"""Fit the confidence of a pair of models on the tune halves, and choose when to repair.

Reads what `specrag eval ... --method speculative --set repair=off --half tune` wrote: one chosen
draft per question with all scores, right or wrong. A logistic regression on the features of
`answering.confidence` gives the weights; folds over questions tell how well it predicts answers it
was not fitted on. `repair_below` is the lowest confidence from which on at least the
wanted share of the answers is right, by those held-out predictions.

What `specrag eval ... --method speculative --half tune` wrote with repair on gives the weights for
answers that the verifier read itself likewise, one row per step of repair that found an answer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from specrag_native.answering.calibration import path as calibration_path
from specrag_native.answering.confidence import (
    FEATURES,
    READING_FEATURES,
    features,
    reading_features,
)
from specrag_native.evaluation.offline import total
from specrag_native.evaluation.results import DraftRecord, Record, read_folder
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


@dataclass(slots=True)
class Rows:
    """What is fitted on: features, right or wrong, and how many are of which set."""

    x: list[tuple[float, ...]] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    sets: dict[str, int] = field(default_factory=dict)

    def add(self, found: tuple[float, ...], right: bool, dataset: str) -> None:
        """Add one answer."""
        self.x.append(found)
        self.y.append(float(right))
        self.sets[dataset] = self.sets.get(dataset, 0) + 1

    @property
    def enough(self) -> bool:
        """Whether every fold has something to fit on."""
        return len(self.y) >= 2 * FOLDS and len(set(self.y)) == 2


def records_of(run: Path, half: str, drafter: str) -> Iterator[tuple[Mapping[str, Any], Record]]:
    """Yield the settings and records of Speculative RAG with a drafter on a half of the sets."""
    from specrag_native.evaluation.datasets import half_of

    for results in read_folder(run):
        if results.header.variant.split(" ")[0] != "speculative":
            continue
        if results.header.models["drafter"]["file"] != drafter:
            continue
        for record in results.records.values():
            if record.error is None and half_of(record.id) == half:
                yield results.header.config, record


def draft_rows(run: Path, half: str, drafter: str) -> Rows:
    """Return the chosen draft of every question whose drafts were all verified."""
    rows, seen = Rows(), set()
    for settings, record in records_of(run, half, drafter):
        verified = [d for d in record.drafts if d.verified]
        key = (record.dataset, record.id)
        if not verified or key in seen or settings.get("verify", "always") != "always":
            continue
        if any(r["step"] == "redraft" for r in record.repairs):
            continue
        seen.add(key)
        winner = max(verified, key=lambda d: total(d, settings))
        verdicts = [verdict_of(d) for d in record.drafts]
        found = features(verdict_of(winner), verdicts)
        if found is not None:
            rows.add(found, winner.grade.right > 0, record.dataset)
    return rows


def reading_rows(run: Path, half: str, drafter: str) -> Rows:
    """Return every answer that the verifier read itself and that stands in what it read."""
    rows, seen = Rows(), set()
    for _, record in records_of(run, half, drafter):
        drafts = [verdict_of(d).draft for d in record.drafts]
        for step in record.repairs:
            key = (record.dataset, record.id, step["step"], step["answer"])
            if step["step"] == "redraft" or not step["answer"] or key in seen:
                continue
            if not step.get("grounded", True) or "probability" not in step:
                continue
            seen.add(key)
            found = reading_features(
                step["answer"],
                step["probability"],
                drafts,
                whole=step.get("whole", step["step"] == "all"),
            )
            rows.add(found, step["right"] > 0, record.dataset)
    return rows


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
    values = np.floor(1e4 * predicted[order]) / 1e4  # as it will be written
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last = np.append(values[1:] < values[:-1], True)  # of those with this value
    good = np.nonzero((shares >= wanted) & last)[0]
    good = good[good + 1 >= LEAST]
    return float(values[good[-1]]) if len(good) else 1.0


def held_out(x: Any, y: Any) -> Any:
    """Return for every row what weights fitted on the other folds predict."""
    predicted = np.zeros(len(y))
    for train, test in KFold(FOLDS, shuffle=True, random_state=0).split(x):
        predicted[test] = predict(fit(x[train], y[train]), x[test])
    return predicted


def error(predicted: Any, y: Any) -> float:
    """Return the expected calibration error, rounded."""
    return round(ece(list(zip(predicted.tolist(), y.tolist(), strict=True))), 4)


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
    rows = draft_rows(args.run, args.half, args.drafter)
    if not rows.enough:
        parser.error(f"{len(rows.y)} answers with both outcomes are too few to fit on")
    x, y = np.asarray(rows.x), np.asarray(rows.y)
    predicted = held_out(x, y)
    below = threshold(predicted, y, args.accuracy)
    above = predicted >= below
    found: dict[str, Any] = {
        "drafter": args.drafter,
        "verifier": args.verifier,
        "confidence_weights": [round(w, 4) for w in fit(x, y)],
        "repair_below": below,
        "fitted_on": {
            "half": args.half,
            "questions": len(y),
            "right": int(y.sum()),
            "sets": rows.sets,
        },
        "held_out": {
            "ece": error(predicted, y),
            "ece_of_belief": error(1 / (1 + np.exp(-x[:, 1])), y),
            "share_above": round(float(above.mean()), 3),
            "accuracy_above": round(float(y[above].mean()), 3) if above.any() else None,
        },
    }
    readings = reading_rows(args.run, args.half, args.drafter)
    if readings.enough:
        x, y = np.asarray(readings.x), np.asarray(readings.y)
        found["reading_weights"] = [round(w, 4) for w in fit(x, y)]
        found["readings"] = {
            "fitted_on": {"answers": len(y), "right": int(y.sum()), "sets": readings.sets},
            "ece": error(held_out(x, y), y),
            "ece_of_probability": error(1 / (1 + np.exp(-x[:, 1])), y),
        }
    names = {"features": FEATURES, "reading_features": READING_FEATURES}
    print(json.dumps({**names, **found}, indent=1))
    if args.write:
        path = calibration_path()
        pairs = json.loads(path.read_text())["pairs"] if path.exists() else []
        same = (args.drafter, args.verifier)
        kept = [p for p in pairs if (p["drafter"], p["verifier"]) != same]
        path.write_text(json.dumps({"pairs": [*kept, found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
