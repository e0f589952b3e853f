"""An engine with known words and known log-probabilities, for tests of everything above tokens."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from specrag_native.chat import lay_out_chat
from specrag_native.errors import Cancelled
from specrag_native.protocol import (
    Batch,
    CancelFlag,
    Completion,
    GenerateOptions,
    Generation,
    OnText,
    Prompt,
    Score,
    Segment,
    SegmentScore,
)
from specrag_native.types import Hit, Passage, Usage

if TYPE_CHECKING:
    from specrag_native.types import FloatArray


def text_of(prompt: Prompt) -> str:
    return "".join(s.text for s in prompt)


def words(text: str) -> tuple[int, ...]:
    return tuple(range(len(text.split())))


class FakeEngine:
    """Tokens are words. ``write(prompt text) -> one text per stage``; ``logprob(text) -> float``
    is the log-probability of each word of a text, generated or scored; ``watched(prompt text)``
    that of each text that a stage watches."""

    name = "fake.gguf"

    def __init__(
        self,
        write: Callable[[str], Sequence[str]] = lambda prompt: ("because", "yes"),
        logprob: Callable[[str], float] = lambda text: -0.5,
        watched: Callable[[str], float] | None = None,
    ) -> None:
        self._write = write
        self._watched = watched
        self._logprob = logprob
        self.generated: list[str] = []
        self.scored: list[str] = []

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        def template(turns: list[tuple[str, str]], add_assistant: bool) -> str:
            return "".join(f"<{role}>{text}</{role}>" for role, text in turns) + "<assistant>"

        return lay_out_chat(messages, template)

    def _completion(self, text: str) -> Completion:
        tokens = words(text)
        return Completion(tokens, (self._logprob(text),) * len(tokens), text, "stop")

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerateOptions,
        *,
        on_text: OnText | None = None,
        cancel: CancelFlag | None = None,
    ) -> Batch[Generation]:
        out = []
        for i, prompt in enumerate(prompts):
            text = text_of(prompt)
            self.generated.append(text)
            stages = self._write(text)
            assert len(stages) == len(options.stages)
            for stage, written in enumerate(stages):
                if on_text is not None:
                    on_text(i, stage, written)
            completions = [self._completion(t) for t in stages]
            if self._watched is not None:
                found = (self._watched(text),) * len(options.stages[0].watch)
                completions[0] = dataclasses.replace(completions[0], watched=found)
            out.append(Generation(tuple(completions)))
        return Batch(tuple(out), Usage(prefilled=10 * len(prompts), decoded=5))

    def score(self, prompts: Sequence[Prompt], *, cancel: CancelFlag | None = None) -> Batch[Score]:
        out = []
        for prompt in prompts:
            self.scored.append(text_of(prompt))
            segments = [s for s in prompt if s.scored]
            out.append(
                Score(
                    tuple(
                        SegmentScore(words(s.text), (self._logprob(s.text),) * len(words(s.text)))
                        for s in segments
                    )
                )
            )
        return Batch(tuple(out), Usage(prefilled=20))


class SlowEngine(FakeEngine):
    """A fake whose every step takes ``step_s``.

    ``steps_per_prompt`` compute a prompt, and in each further one all prompts write a word. It
    honours ``cancel`` between steps, and counts them in ``steps``."""

    def __init__(
        self,
        write: Callable[[str], Sequence[str]] = lambda prompt: ("because", "yes"),
        logprob: Callable[[str], float] = lambda text: -0.5,
        *,
        step_s: float = 0.01,
        steps_per_prompt: int = 1,
    ) -> None:
        super().__init__(write, logprob)
        self.steps = 0
        self._step_s = step_s
        self._per_prompt = steps_per_prompt

    def _step(self, cancel: CancelFlag | None) -> bool:
        if cancel is not None and cancel.cancelled:
            return False
        time.sleep(self._step_s)
        self.steps += 1
        return True

    def _prefill(self, prompts: Sequence[Prompt], cancel: CancelFlag | None) -> bool:
        return all(self._step(cancel) for _ in range(self._per_prompt * len(prompts)))

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerateOptions,
        *,
        on_text: OnText | None = None,
        cancel: CancelFlag | None = None,
    ) -> Batch[Generation]:
        texts = [text_of(p) for p in prompts]
        self.generated += texts
        wanted = [
            [(s, w) for s, text in enumerate(self._write(t)) for w in re.findall(r"\s*\S+", text)]
            for t in texts
        ]
        done: list[list[str]] = [[""] for _ in prompts]
        running = self._prefill(prompts, cancel)
        step = 0
        while running and any(len(w) > step for w in wanted) and (running := self._step(cancel)):
            for i, words_ in enumerate(wanted):
                if len(words_) > step:
                    stage, word = words_[step]
                    done[i] += [""] * (stage + 1 - len(done[i]))
                    done[i][stage] += word
                    if on_text is not None:
                        on_text(i, stage, word)
            step += 1
        out = []
        for i, stages in enumerate(done):
            completions = [self._completion(t) for t in stages]
            if len(wanted[i]) > step or not step:
                last = completions[-1]
                completions[-1] = Completion(last.tokens, last.logprobs, last.text, "cancelled")
            out.append(Generation(tuple(completions)))
        return Batch(tuple(out), Usage(prefilled=10 * len(prompts), decoded=step))

    def score(self, prompts: Sequence[Prompt], *, cancel: CancelFlag | None = None) -> Batch[Score]:
        if not self._prefill(prompts, cancel):
            raise Cancelled("cancelled")
        return super().score(prompts)


class FakeEmbedder:
    """Vectors from a seeded hash of the text; ``embedded`` are all texts so far."""

    name = "fake-embedder"

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> FloatArray:
        self.embedded += texts
        rows = []
        for text in texts:
            rng = np.random.default_rng(sum(text.encode()))
            row = rng.normal(size=8)
            rows.append(row / np.linalg.norm(row))
        return np.asarray(rows, dtype=np.float32)


class FakeModels:
    def __init__(self, drafter: FakeEngine, verifier: FakeEngine) -> None:
        self.drafter = drafter
        self.verifier = verifier
        self.embedder = FakeEmbedder()
        self.reranker: object = None
        self.hop_ranker: object = None


def passage(i: int, text: str = "") -> Passage:
    text = text or f"Fact number {i} is here."
    return Passage(id=f"p{i}", document=f"doc{i}.txt", title=f"Title {i}", text=text, end=len(text))


def hits(n: int, *, seed: int = 0, d: int = 8) -> list[Hit]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [Hit(passage(i), 1.0 / (i + 1), vectors[i]) for i in range(n)]
