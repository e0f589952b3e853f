"""``specrag search``: the passages a question finds, with their scores.

Law: it shows what a model would be given, in that order; ``--mode words`` needs no model.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from specrag_native.cli.index_options import (
    add_embedder_options,
    add_index_option,
    index_dir,
    open_embedder,
)

if TYPE_CHECKING:
    from specrag_native.types import FloatArray, Hit

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "search",
        help="show the passages that a question finds",
        description="Show the passages that a question finds, best first, with their scores: the "
        "fused score, and the cosine between passage and question.",
    )
    parser.add_argument("query", metavar="QUERY", help="a question, or words")
    add_index_option(parser)
    add_embedder_options(parser)
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="passages shown (default: 10)"
    )
    parser.add_argument(
        "--mode",
        choices=("hybrid", "dense", "words"),
        default="hybrid",
        help="rank by words and meaning, meaning alone, or words alone (default: hybrid)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


class _NoModel:
    """Stands in for the embedder where only words are compared."""

    def __init__(self, name: str) -> None:
        self.name = name

    def embed(self, texts: Sequence[str]) -> FloatArray:
        raise RuntimeError("words are ranked without vectors")


def run(args: argparse.Namespace) -> int:
    """Search and print the hits."""
    from specrag_native.errors import QuestionError
    from specrag_native.retrieval.hybrid import RetrievalOptions
    from specrag_native.retrieval.index import Index

    if not args.query.strip():
        raise QuestionError("the query is empty: search for something")
    with Index.open(index_dir(args)) as index:
        words_only = args.mode == "words"
        embedder = _NoModel(index.embedder) if words_only else open_embedder(args)
        retriever = index.retriever(embedder, options=RetrievalOptions(mode=args.mode))
        vector = None if words_only else embedder.embed([args.query])[0]
        hits = retriever.search_with(args.query, vector, args.top)
    if args.json:
        found = [_hit_json(hit, vector) for hit in hits]
        print(json.dumps({"query": args.query, "mode": args.mode, "hits": found}, indent=2))
        return 0
    for rank, hit in enumerate(hits, start=1):
        print(_heading(rank, hit, vector))
        print(_body(hit.passage.text, args.query, colour=sys.stdout.isatty()))
    if not hits:
        print("no passages found")
    return 0


def _cosine(hit: Hit, vector: FloatArray | None) -> float | None:
    return None if vector is None else round(float(hit.vector @ vector), 4)


def _hit_json(hit: Hit, vector: FloatArray | None) -> dict[str, Any]:
    passage = hit.passage
    return {
        "document": passage.document,
        "title": passage.title,
        "start": passage.start,
        "end": passage.end,
        "page": passage.page,
        "score": round(hit.score, 6),
        "cosine": _cosine(hit, vector),
        "text": passage.text,
    }


def _heading(rank: int, hit: Hit, vector: FloatArray | None) -> str:
    passage = hit.passage
    page = "" if passage.page is None else f", page {passage.page}"
    cosine = _cosine(hit, vector)
    scores = f"score {hit.score:.4f}" + ("" if cosine is None else f", cosine {cosine:.3f}")
    return (
        f"{rank:2}. {printable(passage.title)}  [{scores}]\n"
        f"    {printable(passage.document)}{page}, characters {passage.start}-{passage.end}"
    )


def _body(text: str, query: str, *, colour: bool) -> str:
    """Return a passage wrapped and indented, with the words of the query marked."""
    from specrag_native.retrieval.fulltext import highlight_spans

    shown = " ".join(printable(text).split())
    wrapped = textwrap.fill(shown, 96, initial_indent="    ", subsequent_indent="    ")
    before, after = (_BOLD, _PLAIN) if colour else ("*", "*")
    parts, position = [], 0
    for start, end in highlight_spans(wrapped, query):
        parts += [wrapped[position:start], before, wrapped[start:end], after]
        position = end
    return "".join([*parts, wrapped[position:]]) + "\n"


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: control characters become spaces."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
