r"""What the verifier answers from few passages, by how they are chosen.

The drafter ranks the passages of a question, each read alone, by how little it is inclined to say
that there is no evidence; the embedder ranks them by their similarity to the question. From the
best by either, alone and together with one more, the verifier answers as in repair, where it may
say that there is no answer, and as in standard RAG, where it must answer. Linked are passages that
name each other's titles, or that the question names. Rows are appended to
benchmarks/results/readings.jsonl; what stands there is not measured again.

    python benchmarks/bench_readings.py SET.jsonl.gz [SET...] --limit 25
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stored import RESULTS, read_rows

from specrag_native.answering.baselines import StandardRAG
from specrag_native.answering.drafter import Drafter
from specrag_native.answering.grounding import stands_in
from specrag_native.answering.links import Links, links_of
from specrag_native.config import Config
from specrag_native.engines import Engines, ModelPaths
from specrag_native.evaluation import machine
from specrag_native.evaluation.datasets import Example, read_dataset
from specrag_native.evaluation.metrics import contains_answer, grade
from specrag_native.hardware import physical_cores
from specrag_native.model_files import catalog
from specrag_native.prompts import is_unknown
from specrag_native.retrieval.embedding import embedding_text
from specrag_native.types import Passage, Subset

STORED = RESULTS / "readings.jsonl"
MOST_PASSAGES = 10
STEP = 5
"""Questions of one set before those of the next."""


class Readings:
    """The models, and what the verifier answers from each choice of passages."""

    def __init__(self, models: ModelPaths, config: Config) -> None:
        self._engines, self._config = Engines(models), config
        self._drafter = Drafter(self._engines.drafter, config)
        self._readers = {
            must_answer: StandardRAG(self._engines.verifier, config, may_abstain=not must_answer)
            for must_answer in (False, True)
        }
        self._known: dict[tuple[object, ...], dict[str, Any]] = {}

    def of(self, example: Example) -> dict[str, Any]:
        """Return both orders and all readings of a question."""
        passages = example.passages[:MOST_PASSAGES]
        embed = self._engines.embedder.embed
        question = embed([example.question.text])[0]
        cosine = embed([embedding_text(p.title, p.text) for p in passages]) @ question
        drafts, _ = self._drafter.draft(example.question, [Subset((p,)) for p in passages])
        none = [d.unknown_logprob or 0.0 for d in drafts]
        by_none = sorted(range(len(passages)), key=lambda i: none[i])
        by_cosine = sorted(range(len(passages)), key=lambda i: -cosine[i])
        ranked, nearest = [passages[i] for i in by_none], [passages[i] for i in by_cosine]
        links = links_of(example.question.text, passages)
        place = {p.id: i for i, p in enumerate(passages)}
        self._known.clear()
        return {
            "none": [round(x, 4) for x in none],
            "cosine": [round(float(x), 4) for x in cosine],
            "links": [sorted(place[j] for j in links.linked[p.id]) for p in passages],
            "holds": {
                name: contains_answer(f"{p.title}\n{p.text}", example.answers)
                for name, p in (("best", ranked[0]), ("nearest", nearest[0]))
            },
            "readings": {
                "best": self._read(example, ranked[:1]),
                "best and linked": self._read(example, _with_linked(passages, by_none, links)),
                "nearest": self._read(example, nearest[:1]),
                **{
                    name: self._read(example, read, must_answer=must)
                    for must, tail in ((False, ""), (True, ", must answer"))
                    for name, read in (
                        (f"best two{tail}", ranked[:2]),
                        (f"best and nearest{tail}", _with_other(ranked[0], nearest)),
                        (f"nearest two{tail}", nearest[:2]),
                    )
                },
            },
        }

    def _read(
        self, example: Example, read: Sequence[Passage], *, must_answer: bool = False
    ) -> dict[str, Any]:
        """Return whether an answer was found that stands in what was read, and is right.

        Where it must answer, it is right wherever it was found, as in standard RAG.
        """
        key = (must_answer, *(p.text for p in read))
        if key in self._known:
            return self._known[key]
        text, _, _ = self._readers[must_answer].answer(example.question, read)
        found = not is_unknown(text) and stands_in(text, example.question, read)
        right = grade(text, example.question, example.answers).right > 0
        words = sum(len(p.text.split()) for p in read)
        self._known[key] = {
            "answer": text,
            "found": found,
            "right": right and (found or must_answer),
            "words": words,
        }
        return self._known[key]


def _with_other(first: Passage, order: Sequence[Passage]) -> list[Passage]:
    """Return a passage and the first other one of an order, if there is any."""
    return [first, *[p for p in order if p.id != first.id][:1]]


def _with_linked(passages: Sequence[Passage], order: Sequence[int], links: Links) -> list[Passage]:
    """Return the first passage of an order and the next in it that is linked with it, if any."""
    first = passages[order[0]]
    others = [passages[i] for i in order if passages[i].id in links.linked[first.id]]
    return [first, *others[:1]]


def main() -> None:
    """Measure what the command line names and is not stored yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--half", default="tune", choices=("tune", "report"))
    parser.add_argument("--limit", type=int, default=25)
    args = parser.parse_args()
    models = ModelPaths(*(catalog.path_for(r) for r in ("drafter", "verifier", "embedder")))
    digests = [machine.sha256(path)[:12] for path in (models.drafter, models.verifier)]
    config = Config(layout="standalone", n_drafts=MOST_PASSAGES, passages_per_draft=1, n_written=1)
    readings = Readings(models, config)
    stamp = machine.describe(threads=physical_cores())
    done = {(*r["models"], r["id"]) for r in read_rows(STORED)}
    datasets = [read_dataset(file, half=args.half, limit=args.limit) for file in args.sets]
    for first in range(0, args.limit, STEP):  # so that all sets grow together
        for dataset, example in [(d, e) for d in datasets for e in d.examples[first:][:STEP]]:
            if (*digests, example.id) in done:
                continue
            row = {
                "set": dataset.name,
                "id": example.id,
                "half": args.half,
                "models": digests,
                **readings.of(example),
                "machine": stamp,
            }
            with STORED.open("a") as out:
                out.write(json.dumps(row) + "\n")
            found = {name: r["right"] for name, r in row["readings"].items()}
            print(f"{example.id:24} {found}", flush=True)


if __name__ == "__main__":
    main()
