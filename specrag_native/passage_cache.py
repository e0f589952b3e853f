"""Passages as a model read them, kept in a folder beside the index.

Law: a cache may vanish at any time and nothing is lost but time; what it holds serves only the
model file that made it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import ConfigError
from specrag_native.prompts import drafter_prompt, standard_prompt
from specrag_native.protocol import CancelFlag, Prompt
from specrag_native.types import Passage, Question

FOLDER = "passages"
_SETTINGS = "cache.json"
DEFAULT_BYTES = 4 << 30
Reader = Literal["drafter", "verifier"]
_CHUNK = 8
"""Passages computed in one call; after each the person can stop."""


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """Where an index keeps passages that were computed, and how many bytes that may take."""

    path: Path
    limit: int


@dataclass(frozen=True, slots=True)
class Precomputed:
    """What :func:`precompute` did.

    Passages computed now, kept before, and left out for lack of room; ``used`` is the size of the
    folder in bytes.
    """

    computed: int
    kept_before: int
    left_out: int
    used: int


def cache_folder(index_dir: Path) -> CacheFolder | None:
    """Return the folder of kept passages of an index; ``None`` when it has none."""
    folder = index_dir / FOLDER
    try:
        limit = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return CacheFolder(folder, limit) if isinstance(limit, int) and limit > 0 else None


def make_cache_folder(index_dir: Path, limit: int) -> CacheFolder:
    """Make the folder, or change how large it may become.

    Raises:
        ConfigError: it cannot be written.
    """
    folder = index_dir / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        new = folder / f"{_SETTINGS}.new"
        new.write_text(json.dumps({"bytes": limit}) + "\n", encoding="utf-8")
        new.replace(folder / _SETTINGS)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}): free some space or choose another "
            "index"
        ) from None
    return CacheFolder(folder, limit)


def remove_cache_folder(index_dir: Path) -> None:
    """Remove every kept passage of an index, and the folder."""
    folder = index_dir / FOLDER
    (folder / _SETTINGS).unlink(missing_ok=True)
    for pattern in ("*.kv", "*.part", "*.new"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def precompute(
    path: Path,
    options: EngineOptions,
    kept: CacheFolder,
    passages: Iterable[Passage],
    total: int,
    *,
    reader: Reader = "drafter",
    progress: Callable[[int], None] = lambda done: None,
    cancel: CancelFlag | None = None,
) -> Precomputed:
    """Compute passages as a model reads them, into a folder.

    What is there already is not computed again, so a stopped run goes on where it was. It ends when
    the folder is full; nothing goes to make room.

    Args:
        path: the model's file.
        options: settings of its engine.
        kept: the folder.
        passages: what to compute.
        total: how many there are.
        reader: the ``drafter`` reads passages standalone, the ``verifier`` as the first one of what
            it reads in repair.
        progress: called with the number of passages done.
        cancel: stops within a batch; ``Cancelled`` is raised, what was computed is kept.
    """
    engine = NativeEngine(
        path,
        dataclasses.replace(
            options,
            passage_cache_folder=str(kept.path),
            passage_cache_folder_bytes=kept.limit,
            passage_cache_evicts=False,
        ),
    )
    iterator = iter(passages)
    done = computed = 0
    n_files = _n_files(kept)
    while chunk := list(islice(iterator, _CHUNK)):
        misses = engine.passage_cache.misses
        engine.score(
            [_prompt(engine, p, reader) for p in chunk],
            cancel=cancel,
        )
        before, n_files = n_files, _n_files(kept)
        stored = n_files - before
        computed += stored
        missed = engine.passage_cache.misses - misses
        done += len(chunk) - (missed - stored)
        progress(done)
        if stored < missed:
            break
    facts = engine.passage_cache
    return Precomputed(
        computed=computed, kept_before=facts.hits, left_out=total - done, used=facts.disk_bytes
    )


def _prompt(engine: NativeEngine, passage: Passage, reader: Reader) -> Prompt:
    any_question = Question("?")
    if reader == "verifier":
        return standard_prompt(engine, any_question, (passage,), may_abstain=True)
    return drafter_prompt(engine, any_question, (passage,), standalone=True)


def _n_files(kept: CacheFolder) -> int:
    return sum(1 for _ in kept.path.glob("*.kv"))
