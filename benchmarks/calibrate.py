"""Fit the confidence of a pair of models on the tune halves, and choose when to repair.

Reads what `specrag eval ... --method speculative --set repair=off --half tune` wrote: one chosen
draft per question with all scores, right or wrong. A logistic regression on the features of
`answering.confidence` gives the weights; folds over questions tell how well it predicts answers it
was not fitted on. Without more, `repair_below` is the lowest confidence from which on at least the
wanted share of the answers is right, by those held-out predictions.

What `specrag eval ... --method standard,speculative --half tune --set repair=STEPS --set
repair_below=1 --set accept_above=1` wrote (every step is taken) gives the weights for answers that
the verifier read itself likewise, one row per step of repair that found an answer. Then `repair`,
`repair_below` and `accept_above` are those that would have cost the fewest of the verifier's tokens
on these questions at no loss against standard RAG, by the held-out confidences of drafts and the
probabilities of readings.

What the runs say nothing about stays as it is kept for the pair; which drafts are the answer as
they stand is chosen by `calibrate_drafts.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
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
    DRAFT_FEATURES,
    FEATURES,
    READING_FEATURES,
    draft_probability,
    features,
    reading_features,
)
from specrag_native.answering.repair import DRAFTING
from specrag_native.config import Config
from specrag_native.evaluation.datasets import half_of
from specrag_native.evaluation.offline import total
from specrag_native.evaluation.policy import Step, Trace, cheapest, policies
from specrag_native.evaluation.records import DraftRecord, Header, Record
from specrag_native.evaluation.results import read_folder
from specrag_native.evaluation.summary import ece
from specrag_native.types import Draft, LogprobSpan, Scores, Subset, Verdict

FOLDS = 10
POLICY = {"repair", "repair_below", "accept_above", "policy"}
"""What is chosen together."""
LEAST = 10
"""Fewest answers that a threshold may rest on."""
STRENGTH = 0.1
"""Inverse of the regularisation, on standardised features."""
RISING = (
    *("log_odds_yes", "answer_logprob", "self_containment", "log_odds", "agreement"),
    "unrivalled",
)
"""Features of which more is never a reason to trust an answer less; where the few answers at hand
say so, that is chance, and such a feature is left out."""


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
    """What is fitted on: features (by their names) and right or wrong, by what they are of."""

    names: tuple[str, ...]
    x: list[tuple[float, ...]] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    at: dict[Key, int] = field(default_factory=dict)

    def add(self, key: Key, found: tuple[float, ...], right: bool) -> None:
        """Add one answer."""
        self.at[key] = len(self.y)
        self.x.append(found)
        self.y.append(float(right))

    @property
    def sets(self) -> dict[str, int]:
        """How many are of each set."""
        return dict(Counter(key[0] for key in self.at))

    @property
    def folds(self) -> list[tuple[Any, Any]]:
        """Rows to fit on and rows to predict, no question in both; none where they are too few."""
        questions = [repr(key[:2]) for key in self.at]
        if len(set(questions)) < 2 * FOLDS:
            return []
        numbers = {q: i for i, q in enumerate(sorted(set(questions)))}
        y = np.asarray(self.y)
        splits = GroupKFold(FOLDS).split(self.x, y, [numbers[q] for q in questions])
        folds = [(train, test) for train, test in splits]
        return folds if all(len(set(y[train])) == 2 for train, _ in folds) else []

    def held_out(self) -> dict[Key, float]:
        """Return what weights fitted on the other questions predict for each."""
        x, y = np.asarray(self.x), np.asarray(self.y)
        predicted = np.zeros(len(y))
        for train, test in self.folds:
            predicted[test] = predict(fit(x[train], y[train], self.names), x[test])
        return dict(zip(self.at, predicted.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Runs:
    """The results of one pair of models on one half of the sets."""

    folder: Path
    half: str
    drafter: str
    verifier: str
    repair: str
    """Steps of the runs that policies are chosen by."""

    def records(self) -> Iterator[tuple[Header, Record]]:
        """Yield the records of Speculative RAG with their headers."""
        for header, record in self._all("verifier", self.verifier):
            drafter = header.models.get("drafter", {}).get("file")
            if header.variant.split(" ")[0] == "speculative" and drafter == self.drafter:
                yield header, record

    def standard(self) -> dict[Key, float]:
        """Return how right standard RAG is, by set and question."""
        return {
            (record.dataset, record.id): float(record.grade.right > 0)
            for header, record in self._all("verifier", self.verifier)
            if header.method == "standard"
        }

    def drafted(self) -> Iterator[tuple[Header, Record]]:
        """Yield the records of the drafter alone with their headers."""
        for header, record in self._all("drafter", self.drafter):
            if header.method == "drafter":
                yield header, record

    def _all(self, role: str, file: str) -> Iterator[tuple[Header, Record]]:
        for results in read_folder(self.folder):
            if results.header.models.get(role, {}).get("file") == file:
                for record in results.records.values():
                    if record.error is None and half_of(record.id) == self.half:
                        yield results.header, record


def winner_of(header: Header, record: Record) -> DraftRecord | None:
    """Return the draft with the highest score, if all were verified."""
    if header.config.get("verify", "always") != "always":
        return None
    if any(step["step"] in DRAFTING for step in record.repairs):
        return None
    verified = [d for d in record.drafts if d.verified]
    return max(verified, key=lambda d: total(d, header.config), default=None)


def supported(draft: DraftRecord) -> float:
    """Return the share of a stored draft that its passages support, which lowers its confidence."""
    believed = math.exp(min(0.0, draft.answer_logprob.logprob_mean))
    return min(1.0, draft.confidence_alone / max(believed, 1e-9))


def answered(record: Record) -> list[tuple[DraftRecord, Draft, list[Draft]]]:
    """Return the stored drafts that have an answer, each as it was made, and all that were."""
    made = [verdict_of(d).draft for d in record.drafts]
    both = zip(record.drafts, made, strict=True)
    return [(stored, draft, made) for stored, draft in both if not stored.unknown]


def surest(record: Record, weights: Sequence[float]) -> float:
    """Return the confidence in the stored draft that these `draft_weights` trust most, 0..1."""
    return max(
        (
            draft_probability(one, made, tuple(weights)) * supported(stored)
            for stored, one, made in answered(record)
        ),
        default=0.0,
    )


def draft_rows(runs: Runs) -> Rows:
    """Return the chosen draft of every question whose drafts were all verified."""
    rows = Rows(FEATURES)
    seen = set()
    for header, record in runs.records():
        winner = winner_of(header, record)
        question = (record.dataset, record.id)
        if winner is None or question in seen:
            continue
        found = features(verdict_of(winner), [verdict_of(d) for d in record.drafts])
        if found is not None:
            seen.add(question)
            rows.add((*question, header.config_hash), found, winner.grade.right > 0)
    return rows


def reading_rows(runs: Runs) -> Rows:
    """Return every answer that the verifier read itself and that stands in what it read."""
    rows = Rows(READING_FEATURES)
    for header, record in runs.records():
        drafts = [verdict_of(d).draft for d in record.drafts]
        drafted = [i for i, step in enumerate(record.repairs) if step["step"] == "draft"]
        for i, step in enumerate(record.repairs):
            if was_found(step):
                known = [] if drafted and i < drafted[0] else drafts
                found = reading_features(
                    step["answer"], step["probability"], known, whole=step["whole"]
                )
                key = (record.dataset, record.id, header.config_hash, i)
                rows.add(key, found, step["right"] > 0)
    return rows


def was_found(step: Mapping[str, Any]) -> bool:
    """Whether a step read an answer; runs before these were told apart do not say."""
    return bool(step["answer"]) and step["step"] not in DRAFTING and step.get("grounded", False)


def traces_of(
    runs: Runs, drafts: Mapping[Key, float], readings: Mapping[Key, float]
) -> list[Trace]:
    """Return the questions of which everything is known: all steps of repair, and standard RAG.

    ``drafts`` and ``readings``: held-out confidences.
    """
    standard = runs.standard()
    out: dict[Key, Trace] = {}
    for header, record in runs.records():
        config, question = header.config, (record.dataset, record.id)
        key = (*question, header.config_hash)
        every = (
            config["repair"] == runs.repair
            and min(config["repair_below"], config.get("accept_above", 0.0)) >= 1.0
        )
        if not every or question not in standard or question in out:
            continue
        steps = tuple(
            Step(
                step["step"],
                was_found(step),
                float(step["right"] > 0),
                float(step["probability"]),
                readings.get((*key, i), 0.0),
                _tokens(step["usage"]),
            )
            for i, step in enumerate(record.repairs)
            if step["step"] not in DRAFTING
        )
        winner = winner_of(header, record)
        usage = {role: dataclasses.asdict(u) for role, u in record.usage.items()}
        out[question] = Trace(
            drafts[key] * supported(winner) if winner is not None and key in drafts else None,
            float(winner is not None and winner.grade.right > 0),
            _tokens(usage) - sum(s.tokens for s in steps),
            steps,
            standard[question],
        )
    return list(out.values())


def _tokens(usage: Mapping[str, Mapping[str, Any]]) -> int:
    found = usage.get("verifier", {})
    return int(found.get("prefilled", 0) + found.get("decoded", 0))


def fit(x: Any, y: Any, names: Sequence[str]) -> list[float]:
    """Return logistic weights in units of the features as they are, the constant's first.

    None of :data:`RISING` is negative.
    """
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    used = list(range(1, len(names)))
    while True:
        model = LogisticRegression(C=STRENGTH).fit(((x - mean) / scale)[:, used], y)
        falling = [
            (w, i)
            for w, i in zip(model.coef_[0], used, strict=True)
            if w < 0 and names[i] in RISING
        ]
        if not falling:
            break
        used.remove(min(falling)[1])
    weights = np.zeros(len(names))
    weights[used] = model.coef_[0] / scale[used]
    weights[0] = model.intercept_[0] - weights @ mean
    return [float(w) for w in weights]


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
        "ece_of_belief": error(predict((0.0, 1.0), x[:, :2]), y),
    }
    return [round(w, 4) for w in fit(x, y, rows.names)], predicted, facts


def fitted_to(runs: Runs, accuracy: float) -> dict[str, Any]:
    """Return the weights that the runs are enough for, and the cheapest policy at no loss.

    Raises:
        ValueError: there are too few answers of either kind.
    """
    found: dict[str, Any] = {}
    drafts: dict[Key, float] = {}
    readings: dict[Key, float] = {}
    rows = draft_rows(runs)
    if rows.folds:
        found["confidence_weights"], drafts, found["drafts"] = fitted(rows)
        believed = np.asarray(list(drafts.values()))
        found["repair_below"] = threshold(believed, np.asarray(rows.y), accuracy)
    read = reading_rows(runs)
    if read.folds:
        found["reading_weights"], readings, found["readings"] = fitted(read)
    if not found:
        raise ValueError(
            f"{len(rows.y)} drafts and {len(read.y)} readings with both outcomes are too few"
        )
    traces = traces_of(runs, drafts, readings)
    standard = sum(t.baseline for t in traces) / max(1, len(traces))
    order = tuple(runs.repair.split(","))
    candidates = policies(traces, [order], abstain_below=Config().abstain_below)
    best = cheapest(traces, candidates, least=standard) if traces and readings else None
    if best is not None:
        policy, outcome = best
        found["repair"] = ",".join(policy.repair)
        found["repair_below"] = policy.repair_below
        found["accept_above"] = policy.accept_above
        found["policy"] = {
            "questions": len(traces),
            "standard_right": round(standard, 4),
            **{k: round(v, 4) for k, v in dataclasses.asdict(outcome).items()},
        }
    return found


def main() -> None:
    """Fit, print what came out, and write it beside the catalogue when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path, help="folder of specrag eval")
    parser.add_argument("--drafter", required=True, help="file name of the drafter")
    parser.add_argument("--verifier", required=True, help="file name of the verifier")
    parser.add_argument("--accuracy", type=float, default=0.8, help="wanted above repair_below")
    parser.add_argument("--half", default="tune", help="half of the sets that is fitted on")
    parser.add_argument("--repair", default="subset,more", help="steps of the runs")
    parser.add_argument("--write", action="store_true", help="keep it in models/calibration.json")
    args = parser.parse_args()
    runs = Runs(args.run, args.half, args.drafter, args.verifier, args.repair)
    try:
        found = {"half": args.half, **fitted_to(runs, args.accuracy)}
    except ValueError as error:
        parser.error(str(error))
    keep(args.drafter, args.verifier, found, write=args.write)


def keep(drafter: str, verifier: str, fresh: Mapping[str, Any], *, write: bool) -> None:
    """Print what is known of a pair of models with what is new, and write it when asked to."""
    pair = {"drafter": drafter, "verifier": verifier}
    found = merged(kept_of(pair), {**pair, **fresh})
    names = {
        "features": FEATURES,
        "reading_features": READING_FEATURES,
        "draft_features": DRAFT_FEATURES,
    }
    print(json.dumps({**names, **found}, indent=1))
    if write:
        others = [p for p in _pairs() if p | pair != p]
        stored = {**_stored(), "pairs": [*others, found]}
        calibration_path().write_text(json.dumps(stored, indent=1) + "\n")


def merged(kept: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept with what is new; what was chosen together is replaced together."""
    if POLICY & fresh.keys():
        kept = {name: value for name, value in kept.items() if name not in POLICY}
    return {**kept, **fresh}


def _stored() -> dict[str, Any]:
    path = calibration_path()
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _pairs() -> list[dict[str, Any]]:
    return list(_stored().get("pairs", []))


def kept_of(pair: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of a pair of models."""
    return next((p for p in _pairs() if p | pair == p), {})


if __name__ == "__main__":
    main()
