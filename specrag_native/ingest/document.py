"""A document as every reader hands it on.

Law: ``text`` is exactly what is stored, embedded, searched and cited; it holds no character that
cannot be stored (lone surrogates, NUL).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from specrag_native.retrieval.chunking import Layout

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """The extracted text of one document.

    ``title`` is what the document calls itself (``None``: it has no title but its file name);
    ``key`` tells apart the documents of one file (a JSONL row's id); ``pages`` are the offsets
    where pages, slides or sheets start, page 1 first; empty where the format has none;
    ``read_share`` says how much of a streamed file was read up to here, in 0..1.
    """

    text: str
    title: str | None = None
    key: str | None = None
    pages: tuple[int, ...] = ()
    layout: Layout = "prose"
    read_share: float = field(default=1.0, compare=False)

    def page_of(self, offset: int) -> int | None:
        """Return the page, from 1, that holds ``offset``; ``None`` where there are no pages."""
        if not self.pages:
            return None
        return max(1, sum(1 for start in self.pages if start <= offset))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """Bounds on one file, so that no file can stop or exhaust the run."""

    file_bytes: int = 256 * 1024 * 1024
    """Largest file read, in bytes; JSON lines are streamed and not bound by it."""
    text_chars: int = 32 * 1024 * 1024
    """Longest extracted text of one document, in characters."""
    seconds: float = 60.0
    """Longest time a file may take in the child process that parses it."""
    memory_bytes: int = 1536 * 1024 * 1024
    """Address space of that child process, in bytes (where the system can limit it)."""
    encoding: str | None = None
    """How to read text that is not UTF-8; ``None``: such a file is skipped."""


def clean(text: str) -> str:
    """Return ``text`` with characters that cannot be stored replaced, length unchanged."""
    return _UNSTORABLE.sub("\ufffd", text)


def tidy_title(title: str | None) -> str | None:
    """Return a title as one short line, or ``None`` when nothing is left of it."""
    if not title:
        return None
    line = " ".join(clean(title).split())[:200].strip()
    return line or None


def join_pages(pages: Iterable[str]) -> tuple[str, tuple[int, ...]]:
    """Join the texts of pages by blank lines; return the text and where each page starts."""
    parts: list[str] = []
    starts: list[int] = []
    length = 0
    for page in pages:
        if parts:
            parts.append("\n\n")
            length += 2
        starts.append(length)
        parts.append(page)
        length += len(page)
    return "".join(parts), tuple(starts)
