"""Which files a folder offers.

Law: the same folder gives the same files in the same order; links are not followed unless asked,
and then never twice; a folder that cannot be listed is reported, not forgotten.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.errors import DocumentError
from specrag_native.ingest.registry import Reader, reader_for
from specrag_native.retrieval.store import absolute_path

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".specragignore")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """Which files of a folder are looked at."""

    hidden: bool = False
    """Also files and folders whose names start with a dot."""
    follow_links: bool = False
    """Also what symbolic links point to; a folder is entered once."""
    ignore_files: bool = True
    """Honour ``.gitignore`` and ``.specragignore`` files."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that has a reader, with what the file system says of it."""

    path: Path
    reader: Reader
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(slots=True)
class Scan:
    """The outcome of looking at files and folders."""

    files: list[FoundFile] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    """Files and folders that could not be looked at, with the reason."""
    unknown: Counter[str] = field(default_factory=Counter)
    """How many files were passed over for want of a reader, by suffix."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """The ignore files of a folder, and where that folder is."""

    folder: str
    spec: GitIgnoreSpec


def scan(
    paths: Sequence[Path], *, options: ScanOptions | None = None, exclude: Path | None = None
) -> Scan:
    """Look at files and folders; ``exclude`` (the index's own folder) is passed over.

    A path that does not exist raises :class:`DocumentError` before anything is looked at.
    """
    chosen = options or ScanOptions()
    for path in paths:
        if not path.exists():
            raise DocumentError(f"no such file or folder: {path}")
    result = Scan()
    banned = None if exclude is None else os.path.realpath(exclude)
    seen: set[str] = set()
    for path in paths:
        absolute = absolute_path(path)
        if path.is_dir():
            visited: set[tuple[int, int]] = set()
            for found in _walk(absolute, (), chosen, banned, visited, result):
                _look(found, seen, result, named=False)
        else:
            _look(absolute, seen, result, named=True)
    return result


def _look(path: str, seen: set[str], result: Scan, *, named: bool) -> None:
    if path in seen:
        return
    seen.add(path)
    file = Path(path)
    reader = reader_for(file.name)
    if reader is None:
        suffix = file.suffix.lower() or "(no suffix)"
        if named:
            result.failed.append((file, f"no reader for {suffix} files"))
        else:
            result.unknown[suffix] += 1
        return
    try:
        facts = file.stat()
    except OSError as error:
        result.failed.append((file, error.strerror or str(error)))
        return
    result.files.append(
        FoundFile(file, reader, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    )


def _walk(
    folder: str,
    rules: tuple[_Rules, ...],
    options: ScanOptions,
    banned: str | None,
    visited: set[tuple[int, int]],
    result: Scan,
) -> Iterator[str]:
    """Yield the files below ``folder`` in order of their names, depth first, without recursion."""
    stack: list[tuple[str, tuple[_Rules, ...]]] = [(folder, rules)]
    while stack:
        here, outer = stack.pop()
        try:
            facts = Path(here).stat()
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            result.failed.append((Path(here), error.strerror or str(error)))
            continue
        if (facts.st_dev, facts.st_ino) in visited:
            continue
        visited.add((facts.st_dev, facts.st_ino))
        inner = (*outer, *_rules_of(here, entries)) if options.ignore_files else outer
        folders: list[tuple[str, tuple[_Rules, ...]]] = []
        for entry in entries:
            kind = _kind(entry, options)
            if kind is None or (not options.hidden and entry.name.startswith(".")):
                continue
            if _ignored(entry.path, inner, is_folder=kind == "folder"):
                continue
            if kind == "file":
                yield entry.path
            elif banned is None or os.path.realpath(entry.path) != banned:
                folders.append((entry.path, inner))
        stack.extend(reversed(folders))


def _kind(entry: os.DirEntry[str], options: ScanOptions) -> str | None:
    try:
        if entry.is_symlink() and not options.follow_links:
            return None
        if entry.is_dir(follow_symlinks=options.follow_links):
            return "folder"
        if entry.is_file(follow_symlinks=options.follow_links):
            return "file"
    except OSError:
        return None
    return None


def _rules_of(folder: str, entries: Sequence[os.DirEntry[str]]) -> tuple[_Rules, ...]:
    names = {entry.name for entry in entries}
    lines: list[str] = []
    for name in IGNORE_FILES:
        if name in names:
            with contextlib.suppress(OSError):
                data = Path(folder, name).read_bytes()
                lines.extend(data.decode("utf-8", "replace").splitlines())
    if not lines:
        return ()
    from pathspec import GitIgnoreSpec

    patterns: list[Any] = []
    for line in lines:
        with contextlib.suppress(ValueError, re.error):  # one wrong line must not undo the others
            patterns.extend(GitIgnoreSpec.from_lines([line]).patterns)
    return (_Rules(folder, GitIgnoreSpec(patterns)),)


def _ignored(path: str, rules: tuple[_Rules, ...], *, is_folder: bool) -> bool:
    """Return what the innermost ignore file that has an opinion says."""
    for rule in reversed(rules):
        relative = os.path.relpath(path, rule.folder).replace(os.sep, "/")
        verdict = rule.spec.check_file(relative + "/" if is_folder else relative).include
        if verdict is not None:
            return verdict
    return False
