"""Tuning of several models one after the other, within one limit of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.model_files.weights import keep_only
from specrag_native.native import quantise
from specrag_native.protocol import CancelFlag, Engine
from specrag_native.tuning.found import Tuning
from specrag_native.tuning.search import Load, Search
from specrag_native.tuning.store import TunedRole
from specrag_native.tuning.work import WORKS, Work

SHARE = 0.5
"""Of the time left, for a model after which others have their turn."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model to be tuned: its role, its file, and the options it has by default."""

    role: TunedRole
    path: Path
    base: EngineOptions


class SharedWeights:
    """Opens engines of a file with different settings; its weights are loaded once in each type."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._first: dict[str, NativeEngine] = {}

    def __call__(
        self, path: Path, options: EngineOptions, *, cancel: CancelFlag | None = None
    ) -> NativeEngine:
        """Open an engine; of the file before, nothing is kept."""
        if self._path != path:
            self._path, self._first = path, {}
        first = self._first.get(options.weights)
        engine = NativeEngine(path, options, weights_of=first, cancel=cancel)
        self._first.setdefault(engine.options.weights, engine)
        return engine


def tune(
    targets: Sequence[Target],
    *,
    seconds: float,
    cancel: CancelFlag | None = None,
    on_step: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    load: Callable[..., Engine] | None = None,
    works: Mapping[str, Work] = WORKS,
) -> Iterator[Tuning]:
    """Yield what is found for one model after the other, within ``seconds`` altogether.

    After Ctrl-C the model at work is the last one. ``cancel`` stops within one batch.
    """
    deadline = clock() + seconds
    open_shared = load or SharedWeights()
    open_alone = load or NativeEngine
    for i, target in enumerate(targets):
        left = deadline - clock()
        last = i == len(targets) - 1

        def make(options: EngineOptions, path: Path = target.path) -> Engine:
            return open_shared(path, options, cancel=cancel)

        def step(text: str, role: str = target.role) -> None:
            on_step(f"{role}: {text}")

        def other(description: str, stack: ExitStack, path: Path = target.path) -> tuple[str, Load]:
            type_ = "Q8_0" if "Q4_0" in description else "Q4_0"
            written = _written_as(path, type_, stack)
            return type_, lambda options: open_alone(written, options, cancel=cancel)

        search = Search(
            target.role,
            target.path,
            target.base,
            load=make,
            work=works[target.role],
            seconds=left if last else SHARE * left,
            clock=clock,
            on_step=step,
            cancel=cancel,
        )
        found = search.run(other if target.role == "drafter" else None)
        keep_only(target.path, str(found.settings.get("weights", "")))
        yield found
        if found.stopped:
            return


def _written_as(path: Path, type_: str, stack: ExitStack) -> Path:
    """Write a model with its weights in another type to a folder that the stack removes."""
    import tempfile

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="specrag-tune-"))
    target = Path(folder) / f"{type_.lower()}.gguf"
    quantise(path, target, type_)
    return target
