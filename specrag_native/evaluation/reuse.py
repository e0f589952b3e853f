"""Drafts that several variants of one run would write alike are written once.

Law: a remembered generation comes back with the usage it had when it was computed, and its seconds
are kept for whoever counts them.
"""

from __future__ import annotations

from collections.abc import Sequence

from specrag_native.protocol import (
    Batch,
    CancelFlag,
    Engine,
    GenerateOptions,
    Generation,
    OnText,
    Prompt,
    Score,
    Segment,
)


class DraftMemory:
    """Greedy generations by prompts and options; ``reused_s``: seconds saved since it was reset."""

    def __init__(self) -> None:
        self.reused_s = 0.0
        self._kept: dict[int, Batch[Generation]] = {}

    def recall(self, key: int) -> Batch[Generation] | None:
        """Return what was kept under ``key`` and count its seconds as saved."""
        batch = self._kept.get(key)
        if batch is not None:
            self.reused_s += batch.usage.total_s
        return batch

    def keep(self, key: int, batch: Batch[Generation]) -> None:
        """Keep a batch."""
        self._kept[key] = batch


class RememberingEngine:
    """An engine that computes a greedy batch of prompts once."""

    def __init__(self, engine: Engine, memory: DraftMemory) -> None:
        self._engine, self._memory = engine, memory

    @property
    def name(self) -> str:
        """The model's name."""
        return self._engine.name

    def chat(self, messages: Sequence[tuple[str, tuple[Segment, ...]]]) -> Prompt:
        """Lay out messages; see :class:`~specrag_native.protocol.Engine`."""
        return self._engine.chat(messages)

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerateOptions,
        *,
        on_text: OnText | None = None,
        cancel: CancelFlag | None = None,
    ) -> Batch[Generation]:
        """Continue the prompts, or return what the same call returned before."""
        if options.temperature > 0:
            return self._engine.generate(prompts, options, on_text=on_text, cancel=cancel)
        key = hash((self._engine.name, tuple(prompts), options))
        batch = self._memory.recall(key)
        if batch is None:
            batch = self._engine.generate(prompts, options, on_text=on_text, cancel=cancel)
            if cancel is None or not cancel.cancelled:
                self._memory.keep(key, batch)
        return batch

    def score(self, prompts: Sequence[Prompt], *, cancel: CancelFlag | None = None) -> Batch[Score]:
        """Score prompts; nothing is remembered."""
        return self._engine.score(prompts, cancel=cancel)
