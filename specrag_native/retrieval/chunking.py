"""Cuts the text of a document into passages.

Law: a passage is a span of the document's text (``passage == text[start:end]``), made of whole
sentences where sentences are short enough, on one page, and of at most one and a half times the
wanted number of words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from specrag_native.errors import ConfigError
from specrag_native.sentences import Span, line_spans, sentence_spans

Layout = Literal["prose", "lines"]
"""``prose`` is cut at sentences, ``lines`` (code, tables) at line ends."""

# Scripts without spaces count one word for two characters; an endless run of other characters
# counts one word for twenty.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]{{1,2}}|[^\s{_CJK}]{{1,20}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkOptions:
    """How long passages are; both in words."""

    words: int = 100
    """Wanted length of a passage."""
    overlap: int = 0
    """Words of whole sentences repeated from the end of the passage before."""

    def __post_init__(self) -> None:
        if not 10 <= self.words <= 2000:
            raise ConfigError(f"passage length must be 10 to 2000 words, got {self.words}")
        if not 0 <= self.overlap <= self.words // 2:
            raise ConfigError(
                f"overlap must be 0 to {self.words // 2} words (half a passage), got {self.overlap}"
            )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sentence, or a part of one that is too long, with its length in words."""

    start: int
    end: int
    words: int


def count_words(text: str, start: int = 0, end: int | None = None) -> int:
    """Return the length of ``text[start:end]`` in words, the unit of :class:`ChunkOptions`."""
    stop = len(text) if end is None else end
    return sum(1 for _ in _WORD.finditer(text, start, stop))


def chunk(
    text: str,
    *,
    pages: Iterable[int] = (),
    layout: Layout = "prose",
    options: ChunkOptions | None = None,
) -> list[Span]:
    """Return the passages of ``text`` as offsets; ``pages`` are the offsets where pages start."""
    chosen = options or ChunkOptions()
    bounds = sorted({0, len(text), *(p for p in pages if 0 < p < len(text))})
    passages: list[Span] = []
    for start, end in itertools.pairwise(bounds):
        pieces = list(_pieces(text, start, end, layout, chosen.words))
        passages.extend(_pack(text, pieces, chosen))
    return passages


def _pieces(text: str, start: int, end: int, layout: Layout, limit: int) -> Iterator[_Piece]:
    split = sentence_spans if layout == "prose" else line_spans
    for s, e in split(text, start, end):
        words = count_words(text, s, e)
        if words <= limit:
            yield _Piece(s, e, words)
        else:
            yield from _parts(text, s, e, limit)


def _parts(text: str, start: int, end: int, limit: int) -> Iterator[_Piece]:
    """Cut a sentence that is longer than a passage between words, into parts of equal length."""
    words = [m.span() for m in _WORD.finditer(text, start, end)]
    n_parts = -(-len(words) // limit)
    size = -(-len(words) // n_parts)
    for i in range(0, len(words), size):
        part = words[i : i + size]
        yield _Piece(part[0][0], part[-1][1], len(part))


def _pack(text: str, pieces: list[_Piece], options: ChunkOptions) -> Iterator[Span]:
    wanted = options.words
    if sum(p.words for p in pieces) <= wanted * 3 // 2:
        if pieces:
            yield pieces[0].start, pieces[-1].end
        return
    groups: list[list[_Piece]] = []
    current: list[_Piece] = []
    size = 0
    for piece in pieces:
        if current and _is_full(text, current[-1], piece, size, wanted):
            groups.append(current)
            current = _tail(current, options.overlap, wanted - piece.words)
            size = sum(p.words for p in current)
        current.append(piece)
        size += piece.words
    groups.append(current)
    if len(groups) > 1:
        last = sum(p.words for p in groups[-1])
        before = sum(p.words for p in groups[-2])
        if last < wanted // 2 and before + last <= wanted * 3 // 2:
            tail = groups.pop()
            covered = groups[-1][-1].end
            groups[-1].extend(p for p in tail if p.start >= covered)
    for group in groups:
        yield group[0].start, group[-1].end


def _is_full(text: str, last: _Piece, piece: _Piece, size: int, wanted: int) -> bool:
    if size + piece.words > wanted * 3 // 2:
        return True
    if size >= wanted // 2 and size + piece.words > wanted * 23 // 20:
        return True
    new_paragraph = text.count("\n", last.end, piece.start) > 1
    return new_paragraph and size >= wanted * 3 // 4


def _tail(pieces: list[_Piece], overlap: int, room: int) -> list[_Piece]:
    """Return the last whole sentences of ``pieces`` that fit ``overlap`` and ``room`` words."""
    kept: list[_Piece] = []
    size = 0
    for piece in reversed(pieces[1:]):
        if size + piece.words > min(overlap, room):
            break
        kept.insert(0, piece)
        size += piece.words
    return kept
