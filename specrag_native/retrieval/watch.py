"""Keeps an index up to date with a folder that changes.

Law: a change is acted upon by an ordinary run of the indexer, so watching can never leave a state
that indexing would not; the index is held for writing only while a run lasts.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from specrag_native.errors import DocumentError, UserError
from specrag_native.ingest.registry import missing_library
from specrag_native.protocol import Embedder
from specrag_native.retrieval.index_types import IndexOptions, IndexReport
from specrag_native.retrieval.indexer import index_paths
from specrag_native.retrieval.scan import IGNORE_FILES
from specrag_native.retrieval.store import Store, absolute_path

log = logging.getLogger(__name__)


def watch_paths(
    paths: Sequence[Path],
    *,
    index_dir: Path,
    embedder: Embedder,
    options: IndexOptions | None = None,
    stop: Event | None = None,
    settle_ms: int = 1600,
) -> Iterator[IndexReport]:
    """Yield the report of a first run, then of every run that a change made necessary.

    Ends when ``stop`` is set. Changes are gathered for ``settle_ms`` milliseconds. A run that
    fails for a reason that may pass (another writer, a folder that is gone for now) is logged,
    and the next change tries again.
    """
    watchfiles = _watchfiles()
    first = index_paths(paths, index_dir=index_dir, embedder=embedder, options=options)
    roots = [Path(path) for path in paths] or _roots(index_dir)
    yield first
    changes = watchfiles.watch(
        *roots,
        watch_filter=_Relevant(index_dir, options or IndexOptions()),
        debounce=settle_ms,
        stop_event=stop,
        raise_interrupt=True,
        yield_on_timeout=False,
    )
    for _ in changes:
        try:
            report = index_paths(paths, index_dir=index_dir, embedder=embedder, options=options)
        except UserError as error:
            log.error("%s", error)
            continue
        if report.touched or report.skipped:
            yield report


class _Relevant:
    """Says which changes matter: none inside the index, none of hidden files."""

    def __init__(self, index_dir: Path, options: IndexOptions) -> None:
        self._index = Path(absolute_path(index_dir))
        self._hidden = options.scan.hidden

    def __call__(self, change: Any, path: str) -> bool:
        changed = Path(path)
        if changed == self._index or self._index in changed.parents:
            return False
        name = changed.name
        return self._hidden or not name.startswith(".") or name in IGNORE_FILES


def _watchfiles() -> Any:
    try:
        return importlib.import_module("watchfiles")
    except ImportError:
        raise DocumentError(missing_library("changes as they happen", "watchfiles")) from None


def _roots(index_dir: Path) -> list[Path]:
    store = Store(index_dir)
    try:
        return store.roots()
    finally:
        store.close()
