"""What one question came to, and what made it, as values and as the plain rows of a file.

Law: a row that an earlier version of this format wrote is read as it was meant.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specrag_native.evaluation.metrics import Grade
from specrag_native.types import LogprobSpan, Usage

FORMAT = 1
"""Version of the rows this module makes and reads."""

_PLACES = 6


@dataclass(frozen=True, slots=True)
class Header:
    """What made the results that follow it.

    ``variant`` names the method with what was changed in it. ``config_hash`` covers everything
    that can change an answer: method, settings, wording, model files, where passages come from.
    ``contended``: the machine did other work meanwhile, so seconds are not to be compared.
    """

    dataset: str
    method: str
    variant: str
    config_hash: str
    config: Mapping[str, Any]
    models: Mapping[str, Mapping[str, str]]
    evidence: str
    machine: Mapping[str, Any]
    command: str
    contended: bool = False

    @property
    def place(self) -> str:
        """Where seconds were measured: those of two places are not to be compared."""
        return f"{self.machine.get('cpu', 'unknown')}, {self.machine.get('threads', '?')} threads"

    def to_dict(self) -> dict[str, Any]:
        """Return the header as the plain values of its line."""
        return {"type": "header", "format": FORMAT, **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class DraftRecord:
    """One draft as it was written, graded and scored; ``rationale`` is absent in shared results.

    ``confidence``: how far the method trusts it, verified as it is. ``confidence_alone``: how far
    it would without the verifier.
    """

    answer: str
    rationale: str | None
    passages: tuple[str, ...]
    unknown: bool
    verified: bool
    grade: Grade
    rationale_logprob: LogprobSpan
    answer_logprob: LogprobSpan
    contained: LogprobSpan | None = None
    log_yes: float | None = None
    support: float | None = None
    total: float | None = None
    confidence: float = 0.0
    confidence_alone: float = 0.0
    unknown_logprob: float | None = None
    outranked: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """One question answered by one method.

    ``abstained``: 1 when it declined to answer (a share where a record stands for a mean).
    ``timings``: seconds per stage. ``repairs``: for each step of repair its ``answer``, how
    ``right`` it is, its ``seconds`` and ``usage``. ``silence``: how right it would be to decline,
    where the set has an option for that. ``derived``: computed from the drafts of another record,
    without running a model. ``machine``: what its header says of it, see :attr:`Header.place`.
    """

    dataset: str
    id: str
    variant: str
    config_hash: str
    task: str
    answer: str
    grade: Grade
    abstained: float
    decided_by: str
    confidence: float
    timings: Mapping[str, float] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    drafts: tuple[DraftRecord, ...] = ()
    repairs: tuple[Mapping[str, Any], ...] = ()
    silence: float | None = None
    error: str | None = None
    derived: bool = False
    machine: str = ""

    def to_dict(self, *, rationales: bool = True) -> dict[str, Any]:
        """Return the record as the plain values of its line; infinities become null."""
        row: dict[str, Any] = {
            "type": "result",
            "dataset": self.dataset,
            "id": self.id,
            "variant": self.variant,
            "config_hash": self.config_hash,
            "task": self.task,
            "answer": self.answer,
            "grade": _grade_row(self.grade),
            "abstained": self.abstained,
            "decided_by": self.decided_by,
            "confidence": self.confidence,
            "timings": dict(self.timings),
            "usage": {role: dataclasses.asdict(u) for role, u in self.usage.items()},
            "drafts": [_draft_row(d, rationales) for d in self.drafts],
        }
        if self.repairs:
            row["repairs"] = [dict(r) for r in self.repairs]
        if self.silence is not None:
            row["silence"] = self.silence
        if self.error is not None:
            row["error"] = self.error
        return rounded(row)


def record_of(row: Mapping[str, Any]) -> Record:
    """Return the record that a row holds.

    Raises:
        KeyError, TypeError, ValueError: the row holds none.
    """
    return Record(
        dataset=row["dataset"],
        id=row["id"],
        variant=row["variant"],
        config_hash=row["config_hash"],
        task=row["task"],
        answer=row["answer"],
        grade=Grade(*row["grade"]),
        abstained=row["abstained"],
        decided_by=row["decided_by"],
        confidence=row["confidence"],
        timings=row["timings"],
        usage={role: Usage(**u) for role, u in row["usage"].items()},
        drafts=tuple(_draft(d) for d in row["drafts"]),
        repairs=tuple(row.get("repairs", ())),
        silence=row.get("silence"),
        error=row.get("error"),
    )


def _draft(row: Mapping[str, Any]) -> DraftRecord:
    return DraftRecord(
        answer=row["answer"],
        rationale=row.get("rationale"),
        passages=tuple(row["passages"]),
        unknown=row["unknown"],
        verified=row["verified"],
        grade=Grade(*row["grade"]),
        rationale_logprob=LogprobSpan(*row["rationale_logprob"]),
        answer_logprob=LogprobSpan(*row["answer_logprob"]),
        contained=LogprobSpan(*row["contained"]) if row["contained"] else None,
        log_yes=row["log_yes"],
        support=row["support"],
        total=row["total"],
        confidence=row.get("confidence", row["support"] or 0.0),
        confidence_alone=row.get("confidence_alone", _mean_probability(row["answer_logprob"])),
        unknown_logprob=row.get("unknown_logprob"),
        outranked=row.get("outranked", False),
    )


def _mean_probability(span: Sequence[float]) -> float:
    return math.exp(min(0.0, LogprobSpan(span[0], int(span[1])).logprob_mean))


def _draft_row(draft: DraftRecord, rationales: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "answer": draft.answer,
        "passages": list(draft.passages),
        "unknown": draft.unknown,
        "verified": draft.verified,
        "grade": _grade_row(draft.grade),
        "rationale_logprob": _span_row(draft.rationale_logprob),
        "answer_logprob": _span_row(draft.answer_logprob),
        "contained": _span_row(draft.contained) if draft.contained else None,
        "log_yes": draft.log_yes,
        "support": draft.support,
        "total": draft.total,
        "confidence": draft.confidence,
        "confidence_alone": draft.confidence_alone,
        "unknown_logprob": draft.unknown_logprob,
        "outranked": draft.outranked,
    }
    if rationales and draft.rationale is not None:
        row["rationale"] = draft.rationale
    return row


def _grade_row(grade: Grade) -> list[float]:
    return [grade.right, grade.exact, grade.f1, grade.words]


def _span_row(span: LogprobSpan) -> list[float]:
    return [span.logprob_sum, span.n_tokens]


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with floats cut to six places, and null for what JSON has no number."""
    return {key: _rounded(value) for key, value in row.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _PLACES) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return rounded(value)
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
