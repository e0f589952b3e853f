"""How good a ranking of passages is: nDCG, recall, reciprocal rank.

Law: a metric sees the ranked list and what is right, nothing else. Judgements are binary, in one
of two kinds: a document is named as relevant, or a passage contains an accepted answer.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from specrag_native.errors import DocumentError
from specrag_native.evaluation.metrics import contains_answer
from specrag_native.types import Hit

Judgement = Literal["relevance", "answers"]
"""Relevant documents named by the question set, or passages that contain an accepted answer."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A question with what counts as right for it."""

    id: str
    text: str
    relevant: frozenset[str]
    """Keys of the documents that are relevant."""
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RankingScores:
    """Means over questions, all in 0..1."""

    questions: int
    ndcg_10: float
    recall_1: float
    recall_5: float
    recall_10: float
    recall_20: float
    mrr_10: float


def read_judged(path: Path, *, judgement: Judgement, limit: int | None = None) -> list[Judged]:
    """Return the questions of a set that can be judged; those without judgements are left out."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            rows = [json.loads(line) for line in file if line.strip()]
        judged = [_judged(row) for row in rows]
    except FileNotFoundError:
        raise DocumentError(f"no question set at {path}") from None
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DocumentError(f"{path} is no question set ({error})") from None
    usable = [q for q in judged if (q.relevant if judgement == "relevance" else q.answers)]
    if not usable:
        raise DocumentError(f"no question of {path} can be judged by {judgement}")
    return usable[:limit]


def _judged(row: Mapping[str, Any]) -> Judged:
    named = (p for p in row.get("passages") or () if p.get("relevant") is True)
    answers = tuple(str(answer) for answer in row.get("answers") or ())
    return Judged(
        id=str(row["id"]),
        text=str(row["question"]),
        relevant=frozenset(str(passage["id"]) for passage in named),
        answers=answers,
    )


def document_key(hit: Hit) -> str:
    """Return the key of a hit's document: a row's id, or the file's name where it has none."""
    return hit.passage.document.rpartition("#")[2]


def gains(question: Judged, hits: Sequence[Hit], *, judgement: Judgement) -> list[bool]:
    """Return for each rank whether it is right.

    By relevance a rank is a document (its first passage counts), by answers it is a passage.
    """
    if judgement == "relevance":
        documents = dict.fromkeys(document_key(hit) for hit in hits)
        return [key in question.relevant for key in documents]
    return [contains_answer(hit.passage.text, question.answers) for hit in hits]


def ndcg(right: Sequence[bool], n_relevant: int, k: int) -> float:
    """Return normalised discounted cumulative gain at ``k`` with gains of 0 and 1."""
    found = sum(1 / math.log2(rank + 2) for rank, good in enumerate(right[:k]) if good)
    ideal = sum(1 / math.log2(rank + 2) for rank in range(min(k, n_relevant)))
    return found / ideal if ideal else 0.0


def recall(right: Sequence[bool], n_relevant: int, k: int) -> float:
    """Return the share of what is relevant that stands among the first ``k``."""
    return sum(right[:k]) / n_relevant if n_relevant else 0.0


def reciprocal_rank(right: Sequence[bool], k: int) -> float:
    """Return one over the first right rank, 0 beyond ``k``."""
    return next((1 / (rank + 1) for rank, good in enumerate(right[:k]) if good), 0.0)


def mean_scores(
    rankings: Iterable[tuple[Judged, Sequence[Hit]]], *, judgement: Judgement
) -> RankingScores:
    """Return the means over questions.

    By answers, nobody knows how many passages hold one: recall is then the share of questions with
    at least one, and nDCG takes as ideal that all of the first ten do.
    """
    rows: list[tuple[float, ...]] = []
    for question, hits in rankings:
        right = gains(question, hits, judgement=judgement)
        if judgement == "relevance":
            total = len(question.relevant)
            recalls = [recall(right, total, k) for k in (1, 5, 10, 20)]
            rows.append((ndcg(right, total, 10), *recalls, reciprocal_rank(right, 10)))
        else:
            recalls = [float(any(right[:k])) for k in (1, 5, 10, 20)]
            rows.append((ndcg(right, 10, 10), *recalls, reciprocal_rank(right, 10)))
    if not rows:
        return RankingScores(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return RankingScores(len(rows), *means)
