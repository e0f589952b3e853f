r"""Speculative RAG against standard RAG, question by question, in one run on one machine.

Every method answers the same questions from the same passages with the same verifier and threads,
one after another, so that what disturbs the machine disturbs all. Only answering is timed: models
are loaded and passages embedded before. *cold*: no model has computed any of the passages.
*cached*: the drafter has read each before, and the verifier the one that it reads first; what they
computed is in memory. *standard-cached*: so has the verifier each for standard RAG, standalone.
*standard-nearest* reads only the two passages most similar to the question. The settings are those
fitted for the two models; *llama-cpp-documented*, which a user would write after the paper, writes
and verifies every draft, of several passages each, with the library's documented `logprobs`;
*llama-cpp-speculative* reads its logits in its memory instead, which takes knowing its code; with
*-untuned* they do so with the drafter's base, as one without this project's drafter would. *paper*
is what the former do, on our engine. Answers are appended to
benchmarks/results/speed.jsonl as they come; what stands there of this machine is not measured
again. With --records DIR they are also kept there as `specrag eval --half report --out DIR` keeps
them (with --top 15 for musique), so that it need not answer them again.

    python benchmarks/bench_speed.py hotpotqa --questions hotpotqa-dev.jsonl.gz --limit 20
    python benchmarks/bench_speed.py triviaqa --questions triviaqa-dpr-dev.jsonl.gz --limit 20
    python benchmarks/bench_speed.py musique --questions musique-dev.jsonl.gz --limit 20
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rivals.nearest_standard import METHOD as NEAREST_METHOD
from stored import RESULTS, read_rows

from specrag_native.answering import subsets
from specrag_native.answering.calibration import settings_for, taught_to
from specrag_native.answering.pipeline import Pipeline
from specrag_native.cli.settings import add_set_option, read_settings
from specrag_native.config import Config
from specrag_native.engines import Engines, ModelPaths, Role
from specrag_native.evaluation import machine
from specrag_native.evaluation.datasets import Example, half_of, read_dataset
from specrag_native.evaluation.metrics import grade
from specrag_native.evaluation.results import ResultFile
from specrag_native.evaluation.runner import Provenance, evidence_given, record
from specrag_native.evaluation.variants import expand
from specrag_native.hardware import physical_cores
from specrag_native.model_files import catalog
from specrag_native.model_files.weights import written_as
from specrag_native.retrieval.embedding import embedding_text
from specrag_native.types import Answer, Hit, Passage, Question

STORED = RESULTS / "speed.jsonl"
WORKLOADS = {"hotpotqa": (5, 2), "triviaqa": (4, 2), "musique": (10, 6)}
"""With the drafts, and passages per draft, of one who follows the paper with fewer passages."""
MOST_PASSAGES = 15
METHODS = (
    *("standard", "cold", "cached", "llama-cpp-standard", "llama-cpp-speculative"),
    *("llama-cpp-speculative-untuned", "llama-cpp-documented", "llama-cpp-documented-untuned"),
    *("paper", "standard-cached", "standard-nearest"),
)
UNTUNED = "smollm2-135m-instruct"
"""What the drafter was trained from."""
_EVALUATED = {
    "standard": "standard",
    "cold": "speculative",
    "standard-nearest": NEAREST_METHOD,
}
"""What `specrag eval` calls the methods that it has, too."""


def paths() -> ModelPaths:
    """Return the model files: the default ones, or those the environment names."""
    return ModelPaths(
        *(
            catalog.path_for(role, os.environ.get(f"SPECRAG_{role.upper()}"))
            for role in ("drafter", "verifier", "embedder", "reranker", "hop_ranker")
        )
    )


class Workload:
    """The engines of a run, and each method as a call that answers one question."""

    def __init__(self, name: str, models: ModelPaths, config: Config) -> None:
        subsets.preload()
        self.models, self.config = models, config
        m, k = WORKLOADS[name]
        self._by_the_paper = Config(
            n_drafts=m, passages_per_draft=k, repair="off", repair_below=0.0, abstain_below=0.0
        )
        self.engines = Engines(models)
        self._without = _Without(self.engines)
        self._cold_pipeline = Pipeline(self._without, config=config)
        self._pipeline = Pipeline(self.engines, config=config)
        as_taught = self._by_the_paper.replace(**taught_to(models.drafter))
        self._paper_pipeline = Pipeline(self._without, config=as_taught)
        self._rivals: dict[str, Any] = {}

    def method(self, name: str) -> Callable[[Question, list[Hit], Any], Answer]:
        """Return a method; what it needs is loaded by a first answer, which is not timed."""
        if name in ("standard", "cold", "cached", "paper"):
            pipelines = {"cached": self._pipeline, "paper": self._paper_pipeline}
            pipeline = pipelines.get(name, self._cold_pipeline)
            kind = "standard" if name == "standard" else "speculative"
            return lambda q, hits, vector: pipeline.answer(
                q, method=kind, hits=hits, question_vector=vector
            )
        if name not in self._rivals:
            if name == "standard-cached":
                from rivals.cached_standard import CachedStandardRAG

                self._rivals[name] = CachedStandardRAG(self.engines.verifier, self.config)
            elif name == "standard-nearest":
                from rivals.nearest_standard import NearestStandardRAG

                self._rivals[name] = NearestStandardRAG(self._without.verifier, self.config)
            elif name == "llama-cpp-standard":
                from rivals.llama_cpp_standard import LlamaStandardRAG

                self._rivals[name] = LlamaStandardRAG(
                    self.models.verifier, threads=physical_cores(), config=self.config
                )
            else:
                from rivals.llama_cpp_speculative import LlamaSpeculativeRAG

                untuned = name.endswith("untuned")
                drafter = catalog.path_for("drafter", UNTUNED) if untuned else self.models.drafter
                weights = self.engines.options("drafter").weights
                self._rivals[name] = LlamaSpeculativeRAG(
                    written_as(drafter, weights),
                    self.models.verifier,
                    threads=physical_cores(),
                    config=self._by_the_paper.replace(**taught_to(drafter)),
                    documented="documented" in name,
                )
        rival = self._rivals[name]
        return lambda q, hits, vector: rival.answer(q, hits=hits, question_vector=vector)


class _Without:
    """The models of a session with contexts of their own, which keep no passage."""

    def __init__(self, shared: Engines) -> None:
        from specrag_native.engine import NativeEngine

        def without(role: Role, engine: NativeEngine) -> NativeEngine:
            options = dataclasses.replace(shared.options(role), passage_cache_bytes=0)
            return NativeEngine(shared.path(role), options, weights_of=engine)

        self.drafter = without("drafter", shared.drafter)
        self.verifier = without("verifier", shared.verifier)
        self.embedder, self.reranker = shared.embedder, shared.reranker
        self.hop_ranker = shared.hop_ranker


class Records:
    """Answers as `specrag eval` keeps them, each beside those of the same method and settings."""

    def __init__(self, folder: Path, provenance: Provenance, config: Config) -> None:
        self._folder, self._provenance = folder, provenance
        self._variants = {name: expand([m], config)[0] for name, m in _EVALUATED.items()}

    def keep(self, name: str, example: Example, answer: Answer, *, embed_s: float) -> None:
        """Keep an answer, if the method is one of the evaluation's and has no answer there."""
        if name not in self._variants:
            return
        variant = self._variants[name]
        header = self._provenance.header(example.dataset, variant)
        with ResultFile(self._folder, header) as file:
            if example.id not in file.done:
                row = record(example, variant, header.config_hash, answer, embed_s=embed_s)
                file.append(row)


def _made_up(hits: list[Hit]) -> list[Hit]:
    """Return hits of other passages, so that nothing of the question is computed ahead."""
    return [
        dataclasses.replace(h, passage=Passage(f"w{i}", f"w{i}", "", f"House {i} is red.", end=15))
        for i, h in enumerate(hits)
    ]


def _made_by(settings: dict[str, Any], models: dict[str, str]) -> str:
    return json.dumps([settings, models], sort_keys=True)


def questions(args: argparse.Namespace) -> Iterator[Example]:
    """Yield the first questions of the reporting half."""
    rows = [e for e in read_dataset(args.questions).examples if half_of(e.id) == "report"]
    yield from rows[: args.limit]


def main() -> int:
    """Measure what the command line names and is not stored yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--methods", default=",".join(METHODS[:4]))
    parser.add_argument("--records", type=Path, metavar="DIR", help="also keep answers there")
    add_set_option(parser)
    args = parser.parse_args()
    models = paths()
    fitted = settings_for(models.drafter, models.verifier)
    settings: dict[str, Any] = {**fitted, **read_settings(args.set)}
    config = Config.from_mapping(settings)
    workload = Workload(args.workload, models, config)
    own = {k: v for k, v in settings.items() if not k.endswith("_weights")}
    tuned = workload.engines.tuned_roles()
    found = machine.model_files(dataclasses.asdict(models), tuned=tuned)
    files = {role: found[role]["sha256"][:12] for role in ("drafter", "verifier")}
    files |= {f"{role} weights": m["weights"] for role, m in found.items() if "weights" in m}
    stamp = machine.describe(threads=physical_cores(), tuned=tuned)
    provenance = Provenance(
        models=found,
        evidence=evidence_given(MOST_PASSAGES if args.workload == "musique" else None),
        machine=stamp,
        command=shlex.join(["python", "benchmarks/bench_speed.py", args.workload]),
    )
    records = Records(args.records, provenance, config) if args.records else None
    place, made_by = stamp["cpu"], _made_by(own, files)
    done = {
        (r["workload"], r["method"], r["id"])
        for r in read_rows(STORED)
        if r["machine"]["cpu"] == place and _made_by(r["settings"], r.get("models", {})) == made_by
    }
    for example in questions(args):
        rows = workload.engines.embedder.embed(
            [embedding_text(p.title, p.text) for p in example.passages]
        )
        hits = [
            Hit(p, 1 / (i + 1), row)
            for i, (p, row) in enumerate(zip(example.passages, rows, strict=True))
        ][:MOST_PASSAGES]
        begin = time.perf_counter()
        vector = workload.engines.embedder.embed([example.question.text])[0]
        embed_s = time.perf_counter() - begin
        for name in args.methods.split(","):
            if (args.workload, name, example.id) in done:
                continue
            answer_with = workload.method(name)
            if name.endswith("cached"):
                answer_with(example.question, hits, vector)
            # An engine in use has answered something else just before: of that call it keeps the
            # beginning of its prompts, and of calls before it single passages.
            answer_with(Question("Which one?"), _made_up(hits), vector)
            begin = time.perf_counter()
            answer = answer_with(example.question, hits, vector)
            seconds = time.perf_counter() - begin
            row = {
                "workload": args.workload,
                "method": name,
                "id": example.id,
                "settings": own,
                "chosen": args.set,
                "models": files,
                "seconds": round(seconds, 4),
                "stages": {k: round(v, 4) for k, v in answer.timings.items()},
                "usage": {
                    role: {
                        "prefilled": u.prefilled,
                        "reused": u.reused,
                        "decoded": u.decoded,
                        "prefill_s": round(u.prefill_s, 4),
                        "decode_s": round(u.decode_s, 4),
                        "total_s": round(u.total_s, 4),
                    }
                    for role, u in answer.usage.items()
                },
                "decided_by": answer.decided_by,
                "right": grade(answer.answer, example.question, example.answers).right,
                "load": round(os.getloadavg()[0], 2),
                "machine": stamp,
            }
            STORED.parent.mkdir(parents=True, exist_ok=True)
            with STORED.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if records is not None:
                records.keep(name, example, answer, embed_s=embed_s)
            print(f"{name:24} {example.id:20} {seconds:7.2f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(main())
