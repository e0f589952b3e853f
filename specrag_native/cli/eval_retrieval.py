"""``specrag eval-retrieval``: how well an index finds what questions need.

Law: every way of ranking answers the same questions from the same index in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.cli.index_options import (
    add_embedder_options,
    add_index_option,
    index_dir,
    open_embedder,
)

if TYPE_CHECKING:
    from specrag_native.evaluation.ranking import Judged, Judgement, RankingScores
    from specrag_native.protocol import Embedder
    from specrag_native.retrieval.hybrid import Mode, Retriever
    from specrag_native.retrieval.rerank import Reranker
    from specrag_native.types import Hit

MODES: tuple[Mode, ...] = ("words", "dense", "hybrid")
_FETCHED = 60
"""Passages fetched per question; several may belong to one document."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One way of ranking: its scores, and the median time of a search in milliseconds."""

    name: str
    scores: RankingScores
    median_ms: float


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "eval-retrieval",
        help="measure how well an index finds what questions need",
        description="Measure nDCG@10, recall and MRR of an index for a set of questions: by words "
        "(BM25), by embeddings, by both, and reranked by a language model.",
    )
    parser.add_argument(
        "questions", metavar="QUESTIONS", type=Path, help="question set, .jsonl or .jsonl.gz"
    )
    add_index_option(parser)
    add_embedder_options(parser)
    parser.add_argument(
        "--by",
        choices=("relevance", "answers"),
        default="relevance",
        help="right is a document marked relevant, or a passage that contains an accepted answer",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    parser.add_argument(
        "--rerank", metavar="MODEL", help="also rerank the hybrid hits by this language model"
    )
    parser.add_argument(
        "--depth", type=int, default=20, metavar="N", help="hits reranked (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print a table."""
    from specrag_native.evaluation.ranking import read_judged
    from specrag_native.retrieval.hybrid import RetrievalOptions
    from specrag_native.retrieval.index import Index

    questions = read_judged(args.questions, judgement=args.by, limit=args.limit)
    with Index.open(index_dir(args)) as index:
        embedder = open_embedder(args)
        vectors = _embed(embedder, [q.text for q in questions])
        rows: list[_Row] = []
        hybrid: list[Sequence[Hit]] = []
        for mode in MODES:
            retriever = index.retriever(embedder, options=RetrievalOptions(mode=mode))
            found, median = _search(retriever, questions, vectors)
            rows.append(_Row(mode, _score(questions, found, args.by), median))
            hybrid = found
        if args.rerank:
            rows.append(_reranked(_reranker(args), questions, hybrid, args.by))
        counts = index.counts
    if args.json:
        print(json.dumps(_as_json(args, counts.passages, rows), indent=2))
    else:
        _print(rows)
    return 0


def _embed(embedder: Embedder, texts: Sequence[str]) -> list[Any]:
    vectors: list[Any] = []
    for i in range(0, len(texts), 64):
        vectors.extend(embedder.embed(texts[i : i + 64]))
    return vectors


def _search(
    retriever: Retriever, questions: Sequence[Judged], vectors: Sequence[Any]
) -> tuple[list[Sequence[Hit]], float]:
    """Return the hits of each question and the median time of a search in milliseconds.

    Scores come from a search that is deep enough for documents of several passages; times from
    one of ten passages, as an answer needs it.
    """
    retriever.warm()
    found: list[Sequence[Hit]] = []
    times: list[float] = []
    for question, vector in zip(questions, vectors, strict=True):
        started = time.perf_counter()
        retriever.search_with(question.text, vector, 10)
        times.append(1000 * (time.perf_counter() - started))
        found.append(retriever.search_with(question.text, vector, _FETCHED))
    return found, statistics.median(times)


def _score(
    questions: Sequence[Judged], found: Sequence[Sequence[Hit]], judgement: Judgement
) -> RankingScores:
    from specrag_native.evaluation.ranking import mean_scores

    return mean_scores(zip(questions, found, strict=True), judgement=judgement)


def _reranker(args: argparse.Namespace) -> Reranker:
    from specrag_native.engines import Engines, ModelPaths
    from specrag_native.model_files import catalog
    from specrag_native.retrieval.rerank import Reranker, RerankOptions

    path = catalog.resolve(args.rerank, role="drafter").path
    engines = Engines(
        ModelPaths(drafter=path, verifier=path, embedder=path),
        threads=args.threads,
        n_gpu_layers=args.gpu_layers,
    )
    return Reranker(engines.drafter, options=RerankOptions(depth=args.depth))


def _reranked(
    reranker: Reranker,
    questions: Sequence[Judged],
    hybrid: Sequence[Sequence[Hit]],
    judgement: Judgement,
) -> _Row:
    from tqdm import tqdm

    times: list[float] = []
    found: list[Sequence[Hit]] = []
    pairs = list(zip(questions, hybrid, strict=True))
    for question, hits in tqdm(pairs, file=sys.stderr, disable=not sys.stderr.isatty()):
        started = time.perf_counter()
        found.append(reranker.rerank(question.text, hits))
        times.append(1000 * (time.perf_counter() - started))
    return _Row("hybrid + rerank", _score(questions, found, judgement), statistics.median(times))


def _as_json(args: argparse.Namespace, passages: int, rows: Sequence[_Row]) -> dict[str, Any]:
    from specrag_native.evaluation import machine

    return {
        "questions": args.questions.name,
        "judged_by": args.by,
        "passages": passages,
        "rerank": args.rerank,
        "machine": machine.describe(threads=args.threads),
        "results": [
            {"ranking": row.name, "median_ms": round(row.median_ms, 2), **asdict(row.scores)}
            for row in rows
        ],
    }


def _print(rows: Sequence[_Row]) -> None:
    print(f"{rows[0].scores.questions} questions")
    names = ("nDCG@10", "R@1", "R@5", "R@10", "R@20", "MRR@10", "ms")
    print(f"{'':16}" + "".join(f"{name:>9}" for name in names))
    for row in rows:
        _, *values = asdict(row.scores).values()
        cells = "".join(f"{value:9.4f}" for value in values)
        print(f"{row.name:16}{cells}{row.median_ms:9.1f}")
