"""Fit the confidence of a pair of models on the tune halves, and choose when to repair.

Reads what `specrag eval ... --method speculative --set repair=off --half tune` wrote: one chosen
draft per question with all scores, right or wrong. A logistic regression on the features of
`answering.confidence` gives the weights; folds over questions tell how well it predicts answers it
was not fitted on. `repair_below` is the lowest confidence from which on at least the
wanted share of the answers is right, by those held-out predictions.

What `specrag eval ... --method standard,speculative --half tune --set repair=rationales,more --set
accept_above=1` wrote (every step is taken) gives the weights for answers that the verifier read
itself likewise, one row per step of repair that found an answer. Then `repair`, `repair_below` and
`accept_above` are those that would have cost the fewest of the verifier's tokens on these questions
at no loss against standard RAG, by the held-out confidences.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from specrag_native.answering.calibration import path as calibration_path
from specrag_native.answering.confidence import (
    FEATURES,
    READING_FEATURES,
    features,
    reading_features,
)
from specrag_native.evaluation.offline import total
from specrag_native.evaluation.policy import Step, Trace, cheapest, policies
from specrag_native.evaluation.results import DraftRecord, Record, read_folder
from specrag_native.evaluation.summary import ece
from specrag_native.types import Draft, LogprobSpan, Scores, Subset, Verdict

FOLDS = 10
ORDERS = (("rationales", "more"), ("more",))
"""Steps of repair to choose from; all of them are in the runs that are read."""
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


Key = tuple[Any, ...]
"""What a row is of: set, question, and the step of repair if it is of one."""


@dataclass(slots=True)
class Rows:
    """What is fitted on: features and right or wrong, by what they are of."""

    x: list[tuple[float, ...]] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    at: dict[Key, int] = field(default_factory=dict)

    def add(self, key: Key, found: tuple[float, ...], right: bool) -> None:
        """Add one answer."""
        self.at[key] = len(self.y)
        self.x.append(found)
        self.y.append(float(right))

    @property
    def enough(self) -> bool:
        """Whether every fold has something to fit on."""
        return len(self.y) >= 2 * FOLDS and len(set(self.y)) == 2

    @property
    def sets(self) -> dict[str, int]:
        """How many are of each set."""
        return dict(Counter(key[0] for key in self.at))

    def held_out(self) -> dict[Key, float]:
        """Return what weights fitted on the other questions predict for each."""
        x, y = np.asarray(self.x), np.asarray(self.y)
        questions = [key[:2] for key in self.at]
        predicted = np.zeros(len(y))
        for train, test in GroupKFold(FOLDS).split(x, y, [hash_of(q) for q in questions]):
            predicted[test] = predict(fit(x[train], y[train]), x[test])
        return dict(zip(self.at, predicted.tolist(), strict=True))


def hash_of(question: Key) -> int:
    """Return a number that is the same for the same question in every process."""
    return int.from_bytes(hashlib.blake2b(repr(question).encode(), digest_size=6).digest(), "big")


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
    rows = Rows()
    for settings, record in records_of(run, half, drafter):
        verified = [d for d in record.drafts if d.verified]
        key = (record.dataset, record.id)
        if not verified or key in rows.at or settings.get("verify", "always") != "always":
            continue
        if any(r["step"] == "redraft" for r in record.repairs):
            continue
        winner = max(verified, key=lambda d: total(d, settings))
        verdicts = [verdict_of(d) for d in record.drafts]
        found = features(verdict_of(winner), verdicts)
        if found is not None:
            rows.add(key, found, winner.grade.right > 0)
    return rows


def reading_rows(run: Path, half: str, drafter: str) -> Rows:
    """Return every answer that the verifier read itself and that stands in what it read."""
    rows = Rows()
    for _, record in records_of(run, half, drafter):
        drafts = [verdict_of(d).draft for d in record.drafts]
        for i, step in enumerate(record.repairs):
            key = (record.dataset, record.id, i)
            if not _was_found(step) or key in rows.at:
                continue
            whole = step.get("whole", step["step"] == "all")
            found = reading_features(step["answer"], step["probability"], drafts, whole=whole)
            rows.add(key, found, step["right"] > 0)
    return rows


def _was_found(step: Mapping[str, Any]) -> bool:
    read = step["step"] != "redraft" and "probability" in step
    return read and bool(step["answer"]) and step.get("grounded", True)


def traces_of(
    run: Path, half: str, drafter: str, drafts: Mapping[Key, float], readings: Mapping[Key, float]
) -> list[Trace]:
    """Return the questions of which everything is known: all steps of repair, and standard RAG.

    ``drafts`` and ``readings``: held-out confidences.
    """
    standard = {
        (r.dataset, r.id): r.grade.right
        for results in read_folder(run)
        if results.header.method == "standard"
        for r in results.records.values()
    }
    out = []
    for settings, record in records_of(run, half, drafter):
        key = (record.dataset, record.id)
        if settings["accept_above"] < 1.0 or key not in standard or not record.repairs:
            continue
        steps = tuple(
            Step(
                step["step"],
                _was_found(step),
                float(step["right"] > 0),
                readings.get((*key, i), 0.0),
                _tokens(step["usage"]),
            )
            for i, step in enumerate(record.repairs)
        )
        verified = [d for d in record.drafts if d.verified]
        winner = max(verified, key=lambda d: total(d, settings), default=None)
        usage = {role: dataclasses.asdict(u) for role, u in record.usage.items()}
        out.append(
            Trace(
                drafts.get(key, 0.0),
                float(winner is not None and winner.grade.right > 0),
                _tokens(usage) - sum(s.tokens for s in steps),
                steps,
                float(standard[key] > 0),
            )
        )
    return out


def _tokens(usage: Mapping[str, Mapping[str, Any]]) -> int:
    found = usage.get("verifier", {})
    return int(found.get("prefilled", 0) + found.get("decoded", 0))


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


def error(predicted: Any, y: Any) -> float:
    """Return the expected calibration error, rounded."""
    return round(ece(list(zip(map(float, predicted), map(float, y), strict=True))), 4)


def fitted(rows: Rows) -> tuple[list[float], dict[Key, float], dict[str, Any]]:
    """Return weights, held-out predictions, and how good those are."""
    x, y = np.asarray(rows.x), np.asarray(rows.y)
    predicted = rows.held_out()
    facts = {
        "answers": len(y),
        "right": int(y.sum()),
        "sets": rows.sets,
        "ece": error(predicted.values(), y),
        "ece_of_belief": error(1 / (1 + np.exp(-x[:, 1])), y),
    }
    return [round(w, 4) for w in fit(x, y)], predicted, facts


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
    weights, drafts, facts = fitted(rows)
    found: dict[str, Any] = {
        "drafter": args.drafter,
        "verifier": args.verifier,
        "half": args.half,
        "confidence_weights": weights,
        "repair_below": threshold(
            np.asarray(list(drafts.values())), np.asarray(rows.y), args.accuracy
        ),
        "drafts": facts,
    }
    readings = reading_rows(args.run, args.half, args.drafter)
    if readings.enough:
        found["reading_weights"], predicted, found["readings"] = fitted(readings)
        traces = traces_of(args.run, args.half, args.drafter, drafts, predicted)
        best = (
            cheapest(
                traces,
                policies(traces, ORDERS),
                least=sum(t.baseline for t in traces) / len(traces),
            )
            if traces
            else None
        )
        if best is not None:
            policy, outcome = best
            found["repair"] = ",".join(policy.repair)
            found["repair_below"] = policy.repair_below
            found["accept_above"] = policy.accept_above
            found["policy"] = {
                "questions": len(traces),
                "standard_right": round(sum(t.baseline for t in traces) / len(traces), 4),
                **{k: round(v, 4) for k, v in dataclasses.asdict(outcome).items()},
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
