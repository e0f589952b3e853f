"""What another rule would have chosen among the same scored drafts, without running a model.

Law: choosing again by the rule that was in force gives the answer that was given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specrag_native import prompts
from specrag_native.answering.verifier import log_add
from specrag_native.evaluation.metrics import Grade
from specrag_native.evaluation.records import DraftRecord, Record
from specrag_native.evaluation.results import ResultSet
from specrag_native.types import LogprobSpan

Rule = Callable[[Record, Mapping[str, Any]], Record]


def total(draft: DraftRecord, settings: Mapping[str, Any]) -> float:
    """Return the score of a verified draft under some settings, a natural logarithm."""
    assert draft.contained is not None and draft.log_yes is not None
    return (
        bool(settings["use_draft_score"]) * own_score(draft, settings)
        + bool(settings["use_self_containment"]) * _span(draft.contained, settings)
        + bool(settings["use_self_reflection"]) * draft.log_yes
    )


def own_score(draft: DraftRecord, settings: Mapping[str, Any]) -> float:
    """Return the log of rho_Draft."""
    return log_add(_span(draft.rationale_logprob, settings), _span(draft.answer_logprob, settings))


def _span(span: LogprobSpan, settings: Mapping[str, Any]) -> float:
    return span.logprob_mean if settings["normalisation"] == "mean" else span.logprob_sum


def choose(record: Record, settings: Mapping[str, Any]) -> Record:
    """Return the record as it would be if the best draft were chosen by these settings."""
    verified = [d for d in record.drafts if d.verified]
    winner = max(verified, key=lambda d: total(d, settings), default=None)
    if winner is None:  # all drafts agreed and verification was skipped
        known = [d for d in record.drafts if not d.unknown]
        winner = max(known, key=lambda d: own_score(d, settings), default=None)
    confidence = winner.confidence if winner is not None else 0.0
    if winner is None or confidence < settings["abstain_below"]:
        return _abstaining(record, confidence)
    return _giving(record, winner, "speculative", confidence)


def drafter_alone(record: Record, settings: Mapping[str, Any]) -> Record:
    """Return the record of the draft with the highest rho_Draft, unverified."""
    known = [d for d in record.drafts if not d.unknown]
    winner = max(known, key=lambda d: own_score(d, settings), default=None)
    if winner is None:
        return _abstaining(record, 0.0)
    return _giving(record, winner, "drafter", winner.confidence_alone)


def oracle(record: Record, settings: Mapping[str, Any]) -> Record:
    """Return the record of the draft that is most right: what perfect choice would give."""
    known = [d for d in record.drafts if not d.unknown]
    winner = max(known, key=lambda d: (d.grade.right, d.grade.f1), default=None)
    if winner is None:
        return _abstaining(record, 0.0)
    return _giving(record, winner, "speculative", 1.0)


def random_draft(record: Record, settings: Mapping[str, Any]) -> Record:
    """Return the mean over all drafts that answer: what choosing by chance gives on average."""
    known = [d for d in record.drafts if not d.unknown]
    if not known:
        return _abstaining(record, 0.0)
    grades = [dataclasses.astuple(d.grade) for d in known]
    mean = Grade(*(sum(column) / len(known) for column in zip(*grades, strict=True)))
    return dataclasses.replace(
        _giving(record, known[0], "speculative", 1.0 / len(known)), answer="", grade=mean
    )


def _with(**changes: Any) -> Rule:
    return lambda record, settings: choose(record, {**settings, **changes})


RULES: Mapping[str, Rule] = {
    "no-draft-score": _with(use_draft_score=False),
    "no-self-containment": _with(use_self_containment=False),
    "no-self-reflection": _with(use_self_reflection=False),
    "raw-scores": _with(normalisation="sum"),
    "no-abstention": _with(abstain_below=0.0),
    "random-draft": random_draft,
}
"""Offline ablations by name."""


def derive(results: ResultSet) -> dict[str, list[Record]]:
    """Return what can be computed from the drafts of ``speculative``: ablations, oracle.

    Empty for other methods and for variants. Where repair may have answered,
    only what needs no choice by confidence is derived (oracle, random draft), since a rerun could
    repair other questions.
    """
    if results.header.variant not in ("speculative", "speculative no-repair"):
        return {}
    settings = results.header.config
    records = [r for r in results.records.values() if r.error is None]
    rules: dict[str, Rule] = {"oracle": oracle, "random-draft": random_draft}
    if settings["repair"] == "off":
        rules |= RULES
        rules["drafter"] = drafter_alone
    out = {}
    for rule, apply in rules.items():
        label = rule if rule in ("oracle", "drafter") else f"speculative {rule}"
        out[label] = [
            dataclasses.replace(apply(r, settings), variant=label, derived=True) for r in records
        ]
    return out


def _giving(record: Record, draft: DraftRecord, decided_by: str, confidence: float) -> Record:
    return dataclasses.replace(
        record,
        answer=draft.answer,
        grade=draft.grade,
        abstained=0.0,
        decided_by=decided_by,
        confidence=confidence,
    )


def _abstaining(record: Record, confidence: float) -> Record:
    words = float(len(prompts.ABSTAIN_TEXT.split()))
    right = record.silence or 0.0
    return dataclasses.replace(
        record,
        answer=prompts.ABSTAIN_TEXT,
        grade=Grade(right, right, right, words),
        abstained=float(record.silence is None),
        decided_by="abstain",
        confidence=confidence,
    )


def any_right(drafts: Sequence[DraftRecord]) -> float:
    """Return 1.0 when a draft that answers is right, else 0.0."""
    return max((d.grade.right for d in drafts if not d.unknown), default=0.0)
