"""Engines with known answers for the tests of evaluation: no model, the same figures every time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from specrag_native.evaluation.methods import Session
from specrag_native.evaluation.runner import Provenance
from specrag_native.protocol import (
    Batch,
    Completion,
    GenerateOptions,
    Generation,
    Prompt,
    Score,
    Segment,
    SegmentScore,
)
from specrag_native.types import Usage


def fraction(*parts: str) -> float:
    """Return a number in 0..1 that depends on the texts alone."""
    return hashlib.blake2b("\x00".join(parts).encode(), digest_size=1).digest()[0] / 255


class FakeEngine:
    """Writes texts drawn from what it reads, and scores by a hash of it."""

    def __init__(self, name: str = "fake.gguf") -> None:
        self.name = name
        self.n_generate = 0
        self.n_score = 0

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        out: list[Segment] = []
        for role, content in messages:
            out += [Segment(f"<{role}>", control=True), *content]
        return tuple(out)

    def generate(
        self, prompts: Sequence[Prompt], options: GenerateOptions, **_: Any
    ) -> Batch[Generation]:
        self.n_generate += 1
        items = []
        for prompt in prompts:
            text = "".join(s.text for s in prompt)
            words = [w.strip(".,:?") for w in text.split() if w[0].isupper()]
            completions = []
            for i, _stage in enumerate(options.stages):
                said = words[int(fraction(text, str(i)) * (len(words) - 1))]
                logprob = -0.05 - fraction(text, said)
                n = 1 + len(said) % 3
                completions.append(Completion(tuple(range(n)), (logprob,) * n, f" {said}", "stop"))
            items.append(Generation(tuple(completions)))
        return Batch(tuple(items), Usage(prefilled=10, decoded=4, total_s=0.25))

    def score(self, prompts: Sequence[Prompt], **_: Any) -> Batch[Score]:
        self.n_score += 1
        items = []
        for prompt in prompts:
            before, segments = "", []
            for segment in prompt:
                if segment.scored:
                    n = 1 + len(segment.text) % 4
                    logprob = -0.05 - 3 * fraction(before, segment.text)
                    segments.append(SegmentScore(tuple(range(n)), (logprob,) * n))
                before += segment.text
            items.append(Score(tuple(segments)))
        return Batch(tuple(items), Usage(prefilled=20, reused=5, total_s=0.5))


class FakeEmbedder:
    name = "fake-embedder"

    def embed(self, texts: Sequence[str]) -> Any:
        rows = [[fraction(t, str(i)) - 0.5 for i in range(8)] for t in texts]
        vectors = np.asarray(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class FakeModels:
    def __init__(self) -> None:
        self.drafter = FakeEngine("drafter.gguf")
        self.verifier = FakeEngine("verifier.gguf")
        self.embedder = FakeEmbedder()
        self.reranker: Any = None
        self.hop_ranker: Any = None

    def tuned_roles(self) -> dict[str, dict[str, int | str]]:
        return {}


PROVENANCE = Provenance(
    models={
        "drafter": {"file": "drafter.gguf", "sha256": "d" * 64},
        "verifier": {"file": "verifier.gguf", "sha256": "v" * 64},
        "embedder": {"file": "embedder.gguf", "sha256": "e" * 64},
    },
    machine={"cpu": "a processor", "threads": 2, "commit": "abc"},
    command="specrag eval set.jsonl",
)


def session() -> Session:
    return Session(FakeModels())


def rows(n: int = 12) -> list[dict[str, Any]]:
    """Return lines of a question set of names that occur nowhere else."""
    places = ("Arvel", "Brunda", "Corvin", "Deltra", "Evanor", "Fintal")
    return [
        {
            "id": f"q{i}",
            "question": f"Which town lies near hill {i}?",
            "answers": [places[i % 6]],
            "passages": [
                {
                    "id": f"p{i}-{j}",
                    "title": f"Hill {i}",
                    "text": f"{places[(i + j) % 6]} lies here.",
                }
                for j in range(4)
            ],
            "task": "qa",
        }
        for i in range(n)
    ]


def write_set(path: Path, lines: Sequence[Any]) -> Path:
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path
