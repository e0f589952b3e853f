"""Seconds per question, by method, cold and warm, with the rivals in the same run.

Law: only answering is timed. Models are loaded, passages of an index in use embedded, before.

cold: engines that have computed nothing. warm: engines that have just answered another question
from the same passages in the same order. reordered (``full`` only): likewise, but the other
question ranked them differently, as a new one does. One round is one question; the spread is over
questions.

Two questions per case; ten in the cases marked ``full``. SPECRAG_BENCH_SET: a question set
instead of the made-up sample. SPECRAG_DRAFTER, SPECRAG_VERIFIER, SPECRAG_EMBEDDER: models.
"""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sample import same_passages, sample

from specrag_native.config import Config
from specrag_native.engines import Engines, ModelPaths
from specrag_native.errors import UserError
from specrag_native.evaluation import machine
from specrag_native.evaluation.datasets import Example
from specrag_native.evaluation.methods import Session, build
from specrag_native.evaluation.variants import Variant
from specrag_native.hardware import physical_cores
from specrag_native.model_files import catalog
from specrag_native.retrieval.embedding import embedding_text
from specrag_native.types import Answer, Hit, Question

SHORT, FULL = 2, 10
OWN = ("speculative", "standard", "drafter")
RIVALS = ("llama-cpp-standard", "llama-cpp-speculative", "xllamacpp-standard")


@dataclass(frozen=True)
class Asked:
    """A question with what an index in use has at hand."""

    example: Example
    hits: list[Hit]
    vector: Any


@pytest.fixture(scope="session")
def paths() -> ModelPaths:
    try:
        return ModelPaths(
            *(
                catalog.path_for(role, os.environ.get(f"SPECRAG_{role.upper()}"))
                for role in ("drafter", "verifier", "embedder", "reranker", "hop_ranker")
            )
        )
    except UserError as error:
        pytest.skip(f"the models are not on this machine: {error}")


@pytest.fixture(scope="session")
def questions(paths: ModelPaths) -> list[Asked]:
    import sklearn.cluster  # noqa: F401 (its import is not part of an answer)

    embedder = Engines(paths).embedder
    out = []
    for example in sample(FULL):
        rows = embedder.embed([embedding_text(p.title, p.text) for p in example.passages])
        hits = [
            Hit(p, 1 / (i + 1), r)
            for i, (p, r) in enumerate(zip(example.passages, rows, strict=True))
        ]
        out.append(Asked(example, hits, embedder.embed([example.question.text])[0]))
    return out


def _own(method: str, paths: ModelPaths) -> Any:
    engines = Engines(paths)
    for role in ("drafter", "verifier"):
        if method != {"drafter": "standard", "verifier": "drafter"}[role]:
            getattr(engines, role)  # load
    return build(Variant(method, method, Config()), Session(engines))


def _rival(name: str, paths: ModelPaths) -> Any:
    threads = physical_cores()
    if name == "llama-cpp-standard":
        from rivals.llama_cpp_standard import LlamaStandardRAG

        return LlamaStandardRAG(paths.verifier, threads=threads, config=Config())
    if name == "llama-cpp-speculative":
        from rivals.llama_cpp_speculative import LlamaSpeculativeRAG

        return LlamaSpeculativeRAG(paths.drafter, paths.verifier, threads=threads, config=Config())
    pytest.importorskip("xllamacpp", reason="needs the extra bench-rivals")
    from rivals.xllamacpp_standard import XllamacppStandardRAG

    return XllamacppStandardRAG(paths.verifier, threads=threads, config=Config())


class Bench:
    """Runs one method over the questions, cold or warm, and keeps the answers."""

    def __init__(self, make: Callable[[], Any], asked: list[Asked], *, state: str) -> None:
        self._make, self._asked, self._state = make, asked, state
        self._round: Iterator[Asked] = iter(())
        self._method: Any = None
        self.answers: list[Answer] = []

    def run(self, benchmark: Any) -> None:
        """Time one round per question."""
        self._round = iter(self._asked)
        benchmark.pedantic(self._answer, setup=self._prepare, rounds=len(self._asked), iterations=1)
        self._drop()

    def _prepare(self) -> tuple[tuple[Asked], dict[str, Any]]:
        asked = next(self._round)
        if self._method is None or self._state == "cold":
            self._drop()
            self._method = self._make()
        if self._state != "cold":
            n = 1 if self._state == "reordered" else 0
            before = dataclasses.replace(asked, hits=asked.hits[n:] + asked.hits[:n])
            self._ask(same_passages(asked.example), before)
        return (asked,), {}

    def _answer(self, asked: Asked) -> None:
        self.answers.append(self._ask(asked.example.question, asked))

    def _ask(self, question: Question, asked: Asked) -> Answer:
        answer: Answer = self._method.answer(
            question, hits=asked.hits, question_vector=asked.vector
        )
        return answer

    def _drop(self) -> None:
        if hasattr(self._method, "close"):
            self._method.close()
        self._method = None
        gc.collect()


@pytest.mark.parametrize("n", [SHORT, pytest.param(FULL, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "state", ["cold", "warm", pytest.param("reordered", marks=pytest.mark.full)]
)
@pytest.mark.parametrize("method", [*OWN, *RIVALS])
def test_answer(
    method: str, state: str, n: int, paths: ModelPaths, questions: list[Asked], benchmark: Any
) -> None:
    make = _own if method in OWN else _rival
    bench = Bench(lambda: make(method, paths), questions[:n], state=state)
    bench.run(benchmark)
    assert len(bench.answers) == len(questions[:n])
    n = len(bench.answers)
    benchmark.group = state
    own = Engines(paths)
    tuned = own.tuned_roles() if method in OWN else {}
    benchmark.extra_info.update(machine.describe(threads=physical_cores(), tuned=tuned))
    used = {r: p for r in ("drafter", "verifier", "embedder") if (p := getattr(paths, r))}
    benchmark.extra_info["models"] = machine.model_files(used, tuned=tuned)
    benchmark.extra_info["tokens_per_question"] = {
        role: {
            kind: sum(getattr(a.usage[role], kind) for a in bench.answers if role in a.usage) / n
            for kind in ("prefilled", "reused", "decoded")
        }
        for role in ("drafter", "verifier")
        if any(role in a.usage for a in bench.answers)
    }
    benchmark.extra_info["stages_s"] = {
        stage: sum(a.timings.get(stage, 0.0) for a in bench.answers) / n
        for stage in dict.fromkeys(s for a in bench.answers for s in a.timings)
    }
