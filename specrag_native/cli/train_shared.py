"""What the verbs of ``specrag train`` share: sources on the command line, engines, progress.

Law: nothing heavy is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specrag_native.engine import NativeEngine
    from specrag_native.training.data import Source


def source(text: str) -> Source:
    """Read ``SET[:N]``. Raises ``ConfigError`` for a number below 1."""
    from specrag_native.errors import ConfigError
    from specrag_native.training.data import Source

    path, colon, number = text.rpartition(":")
    if colon and number.isdigit():
        if int(number) < 1:
            raise ConfigError(f"the number of questions must be at least 1, got {text!r}")
        return Source(Path(path), int(number))
    return Source(Path(text))


@contextmanager
def bar(what: str, unit: str, *, initial: int = 0) -> Iterator[Callable[..., None]]:
    """Give a teller of (done, total, note) that draws a progress bar on a terminal."""
    from tqdm import tqdm

    shown: Any = None

    def tell(done: int, total: int, note: str = "") -> None:
        nonlocal shown
        if shown is None:
            shown = tqdm(
                total=total, initial=initial, unit=unit, desc=what, disable=not sys.stderr.isatty()
            )
        if note:
            shown.set_postfix_str(note, refresh=False)
        shown.update(done - shown.n)

    try:
        yield tell
    finally:
        if shown is not None:
            shown.close()


def drafting_engine(path: Path, threads: int, *, adapter: str = "") -> NativeEngine:
    """Open a model that drafts, writes or asks, with room for long subsets."""
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions

    return NativeEngine(path, EngineOptions(n_ctx=8192, threads=threads, adapter=adapter))
