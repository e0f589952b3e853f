"""Runs variants over question sets and writes each answer down as soon as it is there.

Law: a killed run loses at most the question in flight; taken up again it ends with the same
results as an unbroken one.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.answering.confidence import Weights, confidence
from specrag_native.errors import QuestionError
from specrag_native.evaluation import metrics
from specrag_native.evaluation.datasets import Dataset, Example
from specrag_native.evaluation.machine import identity
from specrag_native.evaluation.methods import Method, Session, build
from specrag_native.evaluation.records import DraftRecord, Header, Record
from specrag_native.evaluation.results import ResultFile
from specrag_native.evaluation.variants import Variant
from specrag_native.retrieval.embedding import embedding_text
from specrag_native.types import Answer, Hit, Repair, Verdict

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

Clock = Callable[[], float]


def evidence_given(top: int | None) -> str:
    """Return what headers call passages that came with the questions: all of them, or the first."""
    return "given" if top is None else f"given, first {top}"


@dataclass(frozen=True)
class Provenance:
    """What the headers of a run say: model files per role, evidence, machine, command.

    ``models``: file name and sha256 per role. ``evidence``: where the passages come from.
    """

    models: Mapping[str, Mapping[str, str]]
    evidence: str = "given"
    machine: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    contended: bool = False

    def header(self, dataset: str, variant: Variant) -> Header:
        """Return the header for the results of one variant on one set."""
        roles = {role: self.models[role] for role in variant.roles if role in self.models}
        return Header(
            dataset=dataset,
            method=variant.method,
            variant=variant.name,
            config_hash=variant.config_hash(
                models={role: identity(m) for role, m in self.models.items()},
                evidence=self.evidence,
            ),
            config=variant.settings,
            models=roles,
            evidence=self.evidence,
            machine=self.machine,
            command=self.command,
            contended=self.contended,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: questions answered of all that were left when it began."""

    done: int
    total: int
    dataset: str
    variant: str


class Evaluation:
    """Variants over question sets.

    Args:
        session: the engines.
        provenance: what the headers say.
        out: folder of the results.
        top: passages to retrieve, or to keep of the given ones (``None``: all).
        clock: seconds, from any start.
        make: turns a variant into a method.
    """

    def __init__(
        self,
        session: Session,
        provenance: Provenance,
        out: Path,
        *,
        top: int | None = None,
        clock: Clock = time.perf_counter,
        make: Callable[[Variant, Session], Method] = build,
    ) -> None:
        self._session = session
        self._provenance = provenance
        self._out = out
        self._top = top
        self._clock = clock
        self._make = make

    def run(self, datasets: Sequence[Dataset], variants: Sequence[Variant]) -> Iterator[Progress]:
        """Answer every question that has no result yet; yields after each.

        Raises:
            ResultsError: the folder holds results of another format version.
        """
        plan = [(d, v, self._left(d, v)) for d in datasets for v in variants]
        total, done = sum(len(left) for _, _, left in plan), 0
        for dataset in datasets:
            evidence = _GivenEvidence(self._session, self._top, self._clock)
            for _, variant, left in (p for p in plan if p[0] is dataset):
                if not left:
                    continue
                method = self._make(variant, self._session)
                header = self._provenance.header(dataset.name, variant)
                with ResultFile(self._out, header) as file:
                    for example in left:
                        file.append(self._answer(example, variant, header, method, evidence))
                        done += 1
                        yield Progress(done, total, dataset.name, variant.name)

    def _left(self, dataset: Dataset, variant: Variant) -> list[Example]:
        header = self._provenance.header(dataset.name, variant)
        with ResultFile(self._out, header) as file:
            return [e for e in dataset.examples if e.id not in file.done]

    def _answer(
        self,
        example: Example,
        variant: Variant,
        header: Header,
        method: Method,
        evidence: _GivenEvidence,
    ) -> Record:
        hits: list[Hit] | None = None
        vector: FloatArray | None = None
        embed_s = 0.0
        if self._session.retriever is None:
            hits, vector, embed_s = evidence.of(example, vectors="embedder" in variant.roles)
        try:
            answer = method.answer(example.question, hits=hits, question_vector=vector)
        except QuestionError as error:
            return Record(
                dataset=example.dataset,
                id=example.id,
                variant=variant.name,
                config_hash=header.config_hash,
                task=example.question.task,
                answer="",
                grade=metrics.WRONG,
                abstained=1.0,
                decided_by="error",
                confidence=0.0,
                error=str(error),
            )
        return record(example, variant, header.config_hash, answer, embed_s=embed_s)


class _GivenEvidence:
    """The passages that came with a question as hits; embedded once, outside of what is timed."""

    def __init__(self, session: Session, top: int | None, clock: Clock) -> None:
        self._session, self._top, self._clock = session, top, clock
        self._kept: dict[str, tuple[list[Hit], FloatArray, float]] = {}

    def of(self, example: Example, *, vectors: bool) -> tuple[list[Hit], FloatArray | None, float]:
        """Return hits, the question's vector and the seconds it took to embed the question."""
        import numpy as np

        passages = example.passages[: self._top]
        if not vectors:
            none = np.zeros(1, dtype=np.float32)
            return [Hit(p, 1.0 / (i + 1), none) for i, p in enumerate(passages)], None, 0.0
        if example.id not in self._kept:
            embedder = self._session.models.embedder
            rows = embedder.embed([embedding_text(p.title, p.text) for p in passages])
            begin = self._clock()
            asked = embedder.embed([example.question.text])[0]
            seconds = self._clock() - begin
            hits = [
                Hit(p, 1.0 / (i + 1), row)
                for i, (p, row) in enumerate(zip(passages, rows, strict=True))
            ]
            self._kept[example.id] = (hits, asked, seconds)
        return self._kept[example.id]


def record(
    example: Example, variant: Variant, config_hash: str, answer: Answer, *, embed_s: float = 0.0
) -> Record:
    """Grade an answer and return the record of it."""
    question = example.question
    abstained = metrics.abstains(answer.answer, question)
    timings = dict(answer.timings)
    if embed_s:
        timings["embed_question"] = embed_s
        timings["total"] = timings.get("total", 0.0) + embed_s
    given = metrics.grade(answer.answer, question, example.answers)
    return Record(
        dataset=example.dataset,
        id=example.id,
        variant=variant.name,
        config_hash=config_hash,
        task=question.task,
        answer=answer.answer,
        grade=metrics.Grade(0.0, 0.0, 0.0, given.words) if abstained else given,
        abstained=float(abstained),
        decided_by=answer.decided_by,
        confidence=answer.confidence,
        timings=timings,
        usage=answer.usage,
        drafts=tuple(
            _draft(v, example, answer.verdicts, variant.config.confidence_weights)
            for v in answer.verdicts
        ),
        repairs=tuple(_repair(r, example) for r in answer.repairs),
        silence=metrics.silence(question, example.answers),
    )


def _repair(step: Repair, example: Example) -> dict[str, Any]:
    right = metrics.grade(step.answer, example.question, example.answers).right
    return {**dataclasses.asdict(step), "right": right if step.answer else 0.0}


def _draft(
    verdict: Verdict, example: Example, verdicts: Sequence[Verdict], weights: Weights
) -> DraftRecord:
    draft, scores = verdict.draft, verdict.scores
    return DraftRecord(
        answer=draft.answer,
        rationale=draft.rationale,
        passages=draft.subset.ids,
        unknown=draft.unknown,
        verified=verdict.verified,
        grade=metrics.grade(draft.answer, example.question, example.answers),
        rationale_logprob=draft.rationale_logprob,
        answer_logprob=draft.answer_logprob,
        contained=verdict.contained,
        log_yes=scores.self_reflection,
        support=verdict.support,
        total=scores.total if verdict.verified else None,
        confidence=confidence(verdict, verdicts, weights),
        confidence_alone=confidence(dataclasses.replace(verdict, support=None)),
        unknown_logprob=draft.unknown_logprob,
        outranked=draft.outranked,
    )
