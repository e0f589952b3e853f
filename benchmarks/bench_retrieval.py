r"""Measures the index: latency, a store of a million passages, embedding, size, citations.

Each measurement appends one JSON object, with machine, commit and command, to
benchmarks/results/retrieval.json.

    python benchmarks/bench_retrieval.py latency --index DIR --questions SET.jsonl.gz
    python benchmarks/bench_retrieval.py million --folder DIR
    python benchmarks/bench_retrieval.py embed --model MODEL.gguf --corpus CORPUS.jsonl.gz
    python benchmarks/bench_retrieval.py rerank --index DIR --questions SET.jsonl.gz \
        --model EMBEDDER.gguf --reranker MODEL.gguf
    python benchmarks/bench_retrieval.py citations --index DIR --questions SET.jsonl.gz \
        --drafter MODEL.gguf --model EMBEDDER.gguf
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rivals.shared import llama_cpp
from stored import RESULTS

from specrag_native.cli.status import disk_bytes
from specrag_native.engines import Engines, ModelPaths
from specrag_native.evaluation import machine
from specrag_native.ingest.document import Document
from specrag_native.retrieval.fulltext import search_text
from specrag_native.retrieval.index import Index
from specrag_native.retrieval.store_schema import create_database
from specrag_native.retrieval.store_writer import CutDocument, Source, open_writer

STORED = RESULTS / "retrieval.json"


class StandIn:
    """Has the name of an index's embedder and gives vectors that were made before."""

    def __init__(self, name: str, dim: int) -> None:
        self.name = name
        self.dim = dim

    def embed(self, texts: Sequence[str]) -> Any:
        """Return one random unit vector per text."""
        seeds = [int.from_bytes(hashlib.blake2b(t.encode()).digest()[:4], "big") for t in texts]
        rows = np.stack([np.random.default_rng(s).normal(size=self.dim) for s in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def save(name: str, values: dict[str, Any], *, threads: int) -> None:
    """Append one result to the results file and print it."""
    arguments = [Path(a).name if os.sep in a else a for a in sys.argv[1:]]
    entry = {
        "benchmark": name,
        "command": " ".join(["python benchmarks/bench_retrieval.py", *arguments]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "load": [round(x, 2) for x in os.getloadavg()],
        **values,
        "machine": machine.describe(threads=threads),
    }
    STORED.parent.mkdir(parents=True, exist_ok=True)
    entries = json.loads(STORED.read_text()) if STORED.exists() else []
    STORED.write_text(json.dumps([*entries, entry], indent=1) + "\n")
    print(json.dumps(entry, indent=1))


def spread(call: Callable[[int], object], n: int) -> dict[str, float]:
    """Return median and 95th percentile in milliseconds of ``call(i)`` for i in 0..n-1."""
    times = []
    for i in range(n):
        started = time.perf_counter()
        call(i)
        times.append(1000 * (time.perf_counter() - started))
    times.sort()
    return {
        "median_ms": round(statistics.median(times), 3),
        "p95_ms": round(times[min(n - 1, int(0.95 * n))], 3),
        "n": n,
    }


def read_rows(path: Path, limit: int) -> list[dict[str, Any]]:
    """Return the first rows of a JSON lines file."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line, _ in zip(file, range(limit), strict=False)]


def latency(args: argparse.Namespace) -> None:
    """Time opening and searching an index; the questions' embeddings are made before."""
    questions = [str(row["question"]) for row in read_rows(args.questions, 200)]
    code = (
        "import sys, time; from pathlib import Path;"
        "from specrag_native.retrieval.index import Index;"
        "start = time.perf_counter(); index = Index.open(Path(sys.argv[1]));"
        "index.retriever(type('Name', (), {'name': index.embedder})()).warm();"
        "print(1000 * (time.perf_counter() - start))"
    )
    opened = sorted(
        float(subprocess.check_output([sys.executable, "-c", code, str(args.index)]))
        for _ in range(7)
    )
    with Index.open(args.index) as index:
        if args.model:
            path = args.model
            embedder: Any = Engines(ModelPaths(path, path, path), threads=2).embedder
        else:
            embedder = StandIn(index.embedder, index.dim)
        retriever = index.retriever(embedder)
        vectors = embedder.embed(questions)
        retriever.warm()
        n = len(questions)
        retriever.search_with(questions[0], vectors[0], 10)
        values = {
            "index": args.index.name,
            "real_question_vectors": bool(args.model),
            "passages": index.counts.passages,
            "open_and_load_ms_median_of_7_fresh_processes": round(opened[3], 1),
            "search_10": spread(lambda i: retriever.search_with(questions[i], vectors[i], 10), n),
            "words_part": _words_part(index, questions),
            "disk_bytes_per_1000_passages": round(
                1000 * disk_bytes(index.path) / index.counts.passages
            ),
        }
    save("latency", values, threads=2)


def _words_part(index: Index, questions: Sequence[str]) -> dict[str, float]:
    with index._store.read() as connection:
        return spread(lambda i: search_text(connection, questions[i], limit=100), len(questions))


def synthetic(n: int, *, dim: int, block: int = 2000) -> Iterator[tuple[list[str], Any]]:
    """Yield texts of 100 words (Zipf's law over 60,000 words) and clustered unit vectors."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i:x}q" for i in range(60_000)])
    shares = 1 / np.arange(1, 60_001) ** 1.07
    shares /= shares.sum()
    centres = rng.normal(size=(3000, dim)).astype(np.float32)
    for _ in range(0, n, block):
        drawn = rng.choice(60_000, size=(block, 100), p=shares)
        vectors = centres[rng.integers(3000, size=block)]
        vectors = vectors + 0.7 * rng.normal(size=(block, dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield [" ".join(words[row]) for row in drawn], vectors.astype(np.float32)


def million(args: argparse.Namespace) -> None:
    """Make a store of generated passages, then search it in a fresh process."""
    folder: Path = args.folder
    if args.search_only:
        _search_million(folder)
        return
    shutil.rmtree(folder, ignore_errors=True)
    create_database(folder, embedder="synthetic", dim=384)
    started = time.perf_counter()
    with open_writer(folder) as writer:
        for number, (texts, vectors) in enumerate(synthetic(args.passages, dim=384)):
            hashes = [hashlib.blake2b(t.encode(), digest_size=16).digest() for t in texts]
            writer.add_vectors(hashes, vectors)
            source = Source(
                path=f"part{number}.jsonl".encode(),
                size=0,
                mtime_ns=0,
                ctime_ns=0,
                sha256=hashlib.sha256(str(number).encode()).digest(),
                recipe="synthetic",
            )
            writer.replace(
                source,
                [
                    CutDocument(Document(t, key=str(i)), [(0, len(t))], [h])
                    for i, (t, h) in enumerate(zip(texts, hashes, strict=True))
                ],
            )
            if number % 25 == 0:
                print(number * 2000, round(time.perf_counter() - started), "s", flush=True)
        stored = time.perf_counter() - started
        writer.finish()
    built = time.perf_counter() - started - stored
    facts = {"store_s": round(stored, 1), "derived_s": round(built, 1)}
    facts["peak_build_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    (folder.parent / f"{folder.name}-facts.json").write_text(json.dumps(facts))
    subprocess.run(
        [sys.executable, __file__, "million", "--folder", str(folder), "--search-only"], check=True
    )


def _search_million(folder: Path) -> None:
    rng = np.random.default_rng(5)
    started = time.perf_counter()
    index = Index.open(folder)
    embedder = StandIn("synthetic", 384)
    retriever = index.retriever(embedder)
    retriever.warm()
    opened = 1000 * (time.perf_counter() - started)
    questions, vectors = [], []
    with index._store.read() as connection:
        (largest,) = connection.execute("SELECT max(id) FROM passages").fetchone()
        for key in rng.integers(1, largest, size=200):
            row = connection.execute(
                "SELECT text FROM passages WHERE id = ?", (int(key),)
            ).fetchone()
            questions.append(" ".join(rng.choice(row[0].split(), size=8)))
    for texts, drawn in synthetic(2000, dim=384):
        vectors = list(drawn[: len(questions)])
        assert texts
    first = spread(lambda i: retriever.search_with(questions[i], vectors[i], 10), 100)
    warm = spread(lambda i: retriever.search_with(questions[i], vectors[i], 10), 200)
    loaded: Any = retriever._loaded
    facts_file = folder.parent / f"{folder.name}-facts.json"
    save(
        "million",
        {
            "passages": index.counts.passages,
            **(json.loads(facts_file.read_text()) if facts_file.exists() else {}),
            "open_and_load_ms": round(opened, 1),
            "search_10_first_time": first,
            "search_10": warm,
            "dense_part": spread(lambda i: loaded.search(vectors[i], 100), 200),
            "words_part": _words_part(index, questions),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "disk_bytes_per_1000_passages": round(
                1000 * disk_bytes(folder) / index.counts.passages
            ),
            "vector_index": type(loaded.base).__name__,
        },
        threads=1,
    )


def embed(args: argparse.Namespace) -> None:
    """Compare passages embedded per second with llama-cpp-python on the same model and threads."""
    rows = read_rows(args.corpus, args.limit)
    texts = [f"{row.get('title', '')}\n{row['text']}" for row in rows]
    path = args.model
    ours = Engines(ModelPaths(path, path, path), threads=args.threads).embedder
    rival = llama_cpp().Llama(
        str(path), embedding=True, n_ctx=512, n_threads=args.threads, verbose=False
    )
    ours.embed(texts[:4])
    rival.embed(texts[:4], normalize=True)
    rates: dict[str, list[float]] = {"ours": [], "llama_cpp_batch": [], "llama_cpp_single": []}
    vectors: dict[str, Any] = {}
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.embed(texts),
        "llama_cpp_batch": lambda: rival.embed(texts, normalize=True),
        "llama_cpp_single": lambda: [rival.embed(text, normalize=True) for text in texts],
    }
    for _ in range(args.rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            vectors[name] = np.asarray(call(), dtype=np.float32)
            rates[name].append(len(texts) / (time.perf_counter() - started))
    same = float((vectors["ours"] * vectors["llama_cpp_single"]).sum(axis=1).min())
    save(
        "embed",
        {
            "model": path.name,
            "passages": len(texts),
            "passages_per_second": {
                name: round(statistics.median(found), 2) for name, found in rates.items()
            },
            "least_cosine_between_both": round(same, 5),
        },
        threads=args.threads,
    )


def sizes(args: argparse.Namespace) -> None:
    """Index a part of a corpus with several passage sizes and compare what is found."""
    judged = [
        row
        for row in read_rows(args.questions, 1 << 30)
        if any(p.get("relevant") for p in row["passages"])
    ]
    wanted = {p["id"] for row in judged for p in row["passages"] if p.get("relevant")}
    rows = read_rows(args.corpus, 1 << 30)
    rows.sort(
        key=lambda row: (row["id"] not in wanted, hashlib.sha256(row["id"].encode()).digest())
    )
    kept = rows[: max(args.documents, len(wanted))]
    args.folder.mkdir(parents=True, exist_ok=True)
    corpus = args.folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in kept))
    results = []
    for setting in args.settings:
        words, overlap = setting.split("/")
        index = args.folder / f"index-{words}-{overlap}"
        command = [sys.executable, "-m", "specrag_native"]
        options = ["--index", str(index), "--embedder", str(args.model)]
        cut = ["--words", words, "--overlap", overlap]
        started = time.perf_counter()
        subprocess.run([*command, "index", str(corpus), *options, *cut, "--json"], check=True)
        indexed = time.perf_counter() - started
        out = subprocess.check_output(
            [*command, "eval-retrieval", str(args.questions), *options, "--json"]
        )
        found = json.loads(out)
        results.append(
            {
                "passage_words": int(words),
                "overlap": int(overlap),
                "passages": found["passages"],
                "index_s": round(indexed, 1),
                **{
                    r["ranking"]: {k: round(r[k], 4) for k in ("ndcg_10", "recall_10", "mrr_10")}
                    for r in found["results"]
                },
            }
        )
    save(
        "sizes",
        {
            "corpus": f"{len(kept)} of {len(rows)} documents of {args.corpus.name}, all relevant "
            "ones among them",
            "questions": len(judged),
            "embedder": args.model.name,
            "results": results,
        },
        threads=0,
    )


def rerank(args: argparse.Namespace) -> None:
    """Measure what a language model that ranks the hits again gains, and what it costs."""
    command = [sys.executable, "-m", "specrag_native", "eval-retrieval", str(args.questions)]
    options = ["--index", str(args.index), "--embedder", str(args.model), "--json"]
    again = ["--rerank", str(args.reranker), "--depth", str(args.depth), "--limit", str(args.limit)]
    found = json.loads(subprocess.check_output([*command, *options, *again]))
    save(
        "rerank",
        {
            "questions": f"the first {args.limit} of {args.questions.name}",
            "passages": found["passages"],
            "model": args.reranker.name,
            "depth": args.depth,
            "results": found["results"],
        },
        threads=0,
    )


def citations(args: argparse.Namespace) -> None:
    """Check every citation of real answers against the extracted text of its document."""
    from specrag_native.config import Config
    from specrag_native.session import SpeculativeRAG

    questions = [str(row["question"]) for row in read_rows(args.questions, args.limit)]
    config = Config(n_drafts=1)
    counts = {"answers": 0, "with_rationale": 0, "citations": 0, "verbatim": 0}
    supports: list[float] = []
    cite_s: list[float] = []
    with SpeculativeRAG.open(
        args.index,
        config=config,
        drafter=str(args.drafter),
        verifier=str(args.drafter),
        embedder=str(args.model),
        threads=args.threads,
        method="drafter",
    ) as rag:
        for question in questions:
            answer = rag.answer(question, method="drafter")
            counts["answers"] += 1
            counts["with_rationale"] += bool(answer.rationale.strip())
            for citation in answer.citations:
                text = rag.index.document_text(citation.document)
                counts["citations"] += 1
                counts["verbatim"] += (
                    text is not None and text[citation.start : citation.end] == citation.text
                )
            supports.append(answer.support)
            cite_s.append(answer.timings.get("cite", 0.0))
    save(
        "citations",
        {
            "index": args.index.name,
            "drafter": args.drafter.name,
            **counts,
            "mean_support": round(statistics.mean(supports), 3),
            "answers_fully_supported": sum(support == 1.0 for support in supports),
            "answers_without_support": sum(support == 0.0 for support in supports),
            "cite_median_ms": round(1000 * statistics.median(cite_s), 2),
        },
        threads=args.threads,
    )


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    subparsers = parser.add_subparsers(required=True)
    one = subparsers.add_parser("latency")
    one.add_argument("--index", type=Path, required=True)
    one.add_argument("--questions", type=Path, required=True)
    one.add_argument("--model", type=Path, help="embedder of the index, for real vectors")
    one.set_defaults(run=latency)
    two = subparsers.add_parser("million")
    two.add_argument("--folder", type=Path, required=True)
    two.add_argument("--passages", type=int, default=1_000_000)
    two.add_argument("--search-only", action="store_true")
    two.set_defaults(run=million)
    three = subparsers.add_parser("embed")
    three.add_argument("--model", type=Path, required=True)
    three.add_argument("--corpus", type=Path, required=True)
    three.add_argument("--limit", type=int, default=64)
    three.add_argument("--threads", type=int, default=2)
    three.add_argument("--rounds", type=int, default=3)
    three.set_defaults(run=embed)
    six = subparsers.add_parser("rerank")
    six.add_argument("--index", type=Path, required=True)
    six.add_argument("--questions", type=Path, required=True)
    six.add_argument("--model", type=Path, required=True, help="embedder of the index")
    six.add_argument("--reranker", type=Path, required=True)
    six.add_argument("--depth", type=int, default=10)
    six.add_argument("--limit", type=int, default=60)
    six.set_defaults(run=rerank)
    five = subparsers.add_parser("sizes")
    five.add_argument("--corpus", type=Path, required=True)
    five.add_argument("--questions", type=Path, required=True)
    five.add_argument("--model", type=Path, required=True, help="embedder")
    five.add_argument("--folder", type=Path, required=True)
    five.add_argument("--documents", type=int, default=800)
    five.add_argument("--settings", nargs="+", default=["60/0", "100/0", "100/20", "220/0"])
    five.set_defaults(run=sizes)
    four = subparsers.add_parser("citations")
    four.add_argument("--index", type=Path, required=True)
    four.add_argument("--questions", type=Path, required=True)
    four.add_argument("--drafter", type=Path, required=True)
    four.add_argument("--model", type=Path, required=True, help="embedder of the index")
    four.add_argument("--limit", type=int, default=100)
    four.add_argument("--threads", type=int, default=2)
    four.set_defaults(run=citations)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
