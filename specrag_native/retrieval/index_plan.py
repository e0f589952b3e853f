"""What a run has to do: which files are new, changed, moved, gone or as they were.

Law: a file counts as unchanged when the file system says so and it was not written just before it
was last looked at, or else when its content hash says so; a file that turns up elsewhere with the
same content has moved.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from specrag_native.ingest.registry import Reader
from specrag_native.retrieval.chunking import ChunkOptions
from specrag_native.retrieval.scan import FoundFile, Scan
from specrag_native.retrieval.store_writer import Source, StoreWriter

_RACY_NS = 2_000_000_000
"""A file written this shortly before it was looked at may change again within one clock tick."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file to read: what the file system says, and whether the index knew the file."""

    found: FoundFile
    source: Source
    is_new: bool


@dataclass(slots=True)
class Plan:
    """What to do, in the order in which it is done."""

    moves: list[tuple[bytes, Source]] = field(default_factory=list)
    touched: list[Source] = field(default_factory=list)
    """Files with new times and the old content."""
    kept: list[Source] = field(default_factory=list)
    """Files that stay as the index has them, skipped ones included."""
    gone: list[bytes] = field(default_factory=list)
    unreadable: list[Source] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)


class Below:
    """A set of stored names that answers whether a name is one of them or lies below one."""

    def __init__(self, folders: Iterable[bytes]) -> None:
        self._folders = set(folders)
        self._base_too = b"." in self._folders

    def __contains__(self, key: bytes) -> bool:
        if key in self._folders:
            return True
        if self._base_too and not Path(os.fsdecode(key)).is_absolute():
            return True
        separator = os.fsencode(os.sep)
        parts = key.split(separator)
        above = (separator.join(parts[:i]) or separator for i in range(1, len(parts)))
        return any(folder in self._folders for folder in above)


def make_plan(
    writer: StoreWriter,
    roots: Sequence[Path],
    found: Scan,
    *,
    chunking: ChunkOptions,
    encoding: str | None = None,
    reread: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Plan:
    """Compare what is on disk with what the index knows; ``check`` may raise between files."""
    known = writer.sources()
    plan = Plan()
    gone = _gone(writer, roots, found, known)
    lost: dict[tuple[bytes | None, str], list[bytes]] = {}
    for key in sorted(gone):
        if known[key].reason is None:
            lost.setdefault((known[key].sha256, known[key].recipe), []).append(key)
    for file in found.files:
        check()
        now = _source(writer.paths.key(file.path), file, chunking, encoding)
        before = known.get(now.path)
        if before is not None and not reread and _same_facts(before, now):
            plan.kept.append(before)
            continue
        try:
            now = replace(now, sha256=file_hash(file.path))
        except OSError as error:
            plan.unreadable.append(replace(now, reason=error.strerror or str(error)))
            continue
        if before is not None and not reread and _same_content(before, now):
            plan.touched.append(now)
            plan.kept.append(before)
            continue
        old = lost.get((now.sha256, now.recipe))
        if old and not reread:
            moved = old.pop(0)
            gone.discard(moved)
            plan.moves.append((moved, now))
            continue
        plan.jobs.append(Job(file, now, before is None))
    plan.gone = sorted(gone)
    return plan


def recipe(reader: Reader, chunking: ChunkOptions, encoding: str | None) -> str:
    """Return what decides the passages of a file besides its content."""
    parts = (reader.name, reader.version, chunking.words, chunking.overlap, encoding or "")
    return "/".join(str(part) for part in parts)


def file_hash(path: Path) -> bytes:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def still(found: FoundFile) -> bool:
    """Return whether a file is as it was found."""
    try:
        facts = found.path.stat()
    except OSError:
        return False
    then = (found.size, found.mtime_ns, found.ctime_ns)
    return (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns) == then


def refreshed(job: Job) -> Job:
    """Return the job for a file that changed since it was found."""
    facts = job.found.path.stat()
    found = replace(
        job.found, size=facts.st_size, mtime_ns=facts.st_mtime_ns, ctime_ns=facts.st_ctime_ns
    )
    source = replace(
        job.source,
        size=found.size,
        mtime_ns=found.mtime_ns,
        ctime_ns=found.ctime_ns,
        checked_ns=time.time_ns(),
        sha256=file_hash(found.path),
    )
    return Job(found, source, job.is_new)


def _source(key: bytes, file: FoundFile, chunking: ChunkOptions, encoding: str | None) -> Source:
    return Source(
        path=key,
        size=file.size,
        mtime_ns=file.mtime_ns,
        ctime_ns=file.ctime_ns,
        sha256=None,
        recipe=recipe(file.reader, chunking, encoding),
        checked_ns=time.time_ns(),
    )


def _gone(
    writer: StoreWriter, roots: Sequence[Path], found: Scan, known: Mapping[bytes, Source]
) -> set[bytes]:
    """Return the known files below ``roots`` that are there no more.

    What lies in a folder that could not be listed is kept.
    """
    key = writer.paths.key
    here = {key(file.path) for file in found.files}
    below = Below(key(root) for root in roots)
    unlisted = Below(key(path) for path, _ in found.failed)
    return {k for k in known if k not in here and k in below and k not in unlisted}


def _same_facts(before: Source, now: Source) -> bool:
    return (
        before.recipe == now.recipe
        and before.size == now.size
        and before.mtime_ns == now.mtime_ns
        and before.ctime_ns == now.ctime_ns
        and before.checked_ns - max(before.mtime_ns, before.ctime_ns) > _RACY_NS
        and not _may_be_mended(before)
    )


def _same_content(before: Source, now: Source) -> bool:
    return (
        before.recipe == now.recipe and before.sha256 == now.sha256 and not _may_be_mended(before)
    )


def _may_be_mended(before: Source) -> bool:
    """Return whether a file was skipped for something outside the file (a missing library)."""
    return before.reason is not None and "pip install" in before.reason
