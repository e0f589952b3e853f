"""Results of runs: JSON lines that are only ever appended, each file headed by what made it.

Law: a line on disk is never changed. A run that was killed is taken up after its last whole line;
a file of another format version is refused.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from specrag_native.errors import UserError
from specrag_native.evaluation.metrics import Grade
from specrag_native.types import LogprobSpan, Usage

FORMAT = 1
"""Version of the files this module reads and writes."""

_PLACES = 6


class ResultsError(UserError):
    """Results that cannot be read: another format version, or a broken line."""


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
    without running a model.
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
        return _rounded(row)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class ResultSet:
    """The results of one file: its latest header, and its records by question id."""

    header: Header
    records: Mapping[str, Record]
    contended: frozenset[str] = frozenset()
    """Ids of the questions whose seconds were measured on a busy machine."""


def read_results(path: Path) -> ResultSet:
    """Read a results file, plain or gzip.

    A last line that was cut short by a kill is left out.

    Raises:
        ResultsError: another format version, no header, or a broken line before the last.
    """
    header: Header | None = None
    records: dict[str, Record] = {}
    contended: set[str] = set()
    for line in read_lines(path):
        if isinstance(line, Header):
            header = line
            continue
        records[line.id] = line
        if header is not None and header.contended:
            contended.add(line.id)
    if header is None:
        raise ResultsError(f"{path} holds no results: a header was expected")
    return ResultSet(header, records, frozenset(contended))


def read_folder(folder: Path) -> list[ResultSet]:
    """Read every results file (``*.jsonl``, ``*.jsonl.gz``) of a folder, in order of their names.

    Raises:
        ResultsError: there is none, or one cannot be read.
    """
    paths = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not paths:
        raise ResultsError(f"{folder} holds no results: expected files named *.jsonl or *.jsonl.gz")
    return [read_results(path) for path in paths]


def file_name(header: Header) -> str:
    """Return the name of the file for results under this header."""
    variant = re.sub(r"[^a-zA-Z0-9.=+-]+", "-", header.variant)
    return f"{header.dataset}.{variant}.{header.config_hash[:8]}.jsonl"


class ResultFile:
    """A results file for appending; made at the first record, or taken up where it ends.

    Args:
        folder: where the file is, or will be.
        header: what the next results are made by. It is written when it differs from the file's
            latest one.

    Raises:
        ResultsError: the file that is there is of another format version, or of another config.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / file_name(header)
        self.done: frozenset[str] = frozenset()
        self._header: Header | None = header
        self._file: TextIO | None = None
        if self.path.exists():
            self._drop_cut_line()
            if self.path.stat().st_size:
                found = read_results(self.path)
                self.done = frozenset(found.records)
                if found.header.config_hash != header.config_hash:
                    raise ResultsError(
                        f"{self.path} holds results of another configuration "
                        f"({found.header.config_hash}): choose another folder with --out"
                    )
                if _rounded(found.header.to_dict()) == _rounded(header.to_dict()):
                    self._header = None

    def append(self, record: Record) -> None:
        """Write one record and hand it to the operating system; its header goes first."""
        if self._header is not None:
            header, self._header = self._header, None
            self._write(header.to_dict())
        self._write(record.to_dict())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> ResultFile:
        """Return the file itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        self.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        text = json.dumps(_rounded(row), ensure_ascii=False, allow_nan=False)
        # These two end a line for some readers.
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(text + "\n")
        self._file.flush()

    def _drop_cut_line(self) -> None:
        """Remove what follows the last line break: the line that was being written at a kill."""
        with self.path.open("rb+") as file:
            data = file.read()
            end = data.rfind(b"\n") + 1
            if end != len(data):
                file.truncate(end)
                os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[Header | Record]:
    """Yield the headers and records of a results file in their order.

    Raises:
        ResultsError: another format version, no header, or a broken line before the last.
    """
    headed = False
    for number, row in _rows(path):
        if row.get("type") == "header":
            headed = True
            yield _header(path, number, row)
            continue
        if not headed:
            raise ResultsError(f"{path}, line {number}: a header was expected first")
        try:
            record = _record(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(
                f"{path}, line {number}: no result of format {FORMAT} ({error!r})"
            ) from None
        yield record


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if line == data[data.rfind(b"\n") + 1 :]:
                return
            raise ResultsError(f"{path}, line {number}: not JSON; restore or delete it") from None
        if not isinstance(row, dict):
            raise ResultsError(f"{path}, line {number}: expected an object")
        yield number, row


def _header(path: Path, number: int, row: Mapping[str, Any]) -> Header:
    if row.get("format") != FORMAT:
        raise ResultsError(
            f"{path}, line {number}: results of format {row.get('format')!r}, and this version "
            f"reads and writes format {FORMAT}: keep them, and choose another folder"
        )
    names = {f.name for f in dataclasses.fields(Header)}
    try:
        return Header(**{name: value for name, value in row.items() if name in names})
    except TypeError as error:
        raise ResultsError(f"{path}, line {number}: a header lacks a field ({error})") from None


def _record(row: Mapping[str, Any]) -> Record:
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


def _rounded(value: Any) -> Any:
    """Return plain values with floats cut to six places, and null for what JSON has no number."""
    if isinstance(value, float):
        return round(value, _PLACES) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
