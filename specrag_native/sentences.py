"""Sentences as spans of a text.

Law: spans are in order, never overlap, never start or end with white space, and nothing but white
space lies between them; every pattern here runs in linear time whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]
"""Start and end offset in characters."""

_CLOSERS = "\"'\u201d\u2019\u00bb)\\]"
_WIDE_STOPS = "\u3002\uff01\uff1f"
# A run of terminators is entered only at its first character (look-behind), so a file made of
# millions of dots is still scanned once.
_WIDE_CLOSERS = "\u201d\u2019\u300d\u300f\uff09"
_BOUNDARY = re.compile(
    # a full stop and white space after it
    rf"(?<![.!?…])[.!?…]+[{_CLOSERS}]*(?=\s)"
    # scripts that put no space after it
    rf"|(?<![{_WIDE_STOPS}])[{_WIDE_STOPS}]+[{_WIDE_CLOSERS}]*"
    # a blank line
    r"|\n[ \t\r]*\n"
    # a list item, a heading, a quote
    r"|\n(?=[ \t]{0,16}(?:[-*•+#>|]|\d{1,3}[.)])[ \t])"
)
_SHORT = (
    "mr mrs ms dr prof rev hon sr jr st mt gen col capt lt sgt maj adm gov sen rep pres "
    "vs etc eg ie cf al ca approx dept est fig figs eq eqs no nos vol vols pp ed eds inc ltd co "
    "corp bros jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun "
    "ave blvd rd b c d r v u.s u.k e.g i.e a.m p.m ph.d"
)
_ABBREVIATIONS = frozenset(_SHORT.split())
_LAST_WORD = re.compile(r"[\w.]{1,12}\Z")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """Return the sentences of ``text[start:end]`` as offsets into ``text``.

    Blank lines, list items and headings end a sentence too.
    """
    stop = len(text) if end is None else end
    return list(_trimmed(text, _cuts(text, start, stop)))


def line_spans(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """Return the non-empty lines of ``text[start:end]``: the sentences of code and of tables."""
    stop = len(text) if end is None else end
    return list(_trimmed(text, _line_cuts(text, start, stop), keep_indent=True))


def _cuts(text: str, start: int, stop: int) -> Iterator[Span]:
    begin = start
    for match in _BOUNDARY.finditer(text, start, stop):
        if match.start() < begin or not _ends_sentence(text, match, stop):
            continue
        yield begin, match.end()
        begin = match.end()
    if begin < stop:
        yield begin, stop


def _line_cuts(text: str, start: int, stop: int) -> Iterator[Span]:
    begin = start
    while begin < stop:
        newline = text.find("\n", begin, stop)
        end = stop if newline < 0 else newline + 1
        yield begin, end
        begin = end


def _ends_sentence(text: str, match: re.Match[str], stop: int) -> bool:
    mark = text[match.start()]
    if mark == "\n" or mark in _WIDE_STOPS:
        return True
    after = match.end()
    while after < min(stop, match.end() + 8) and text[after].isspace():
        after += 1
    if after < stop and text[after].islower():
        return False
    if mark != "." or match.group().startswith(".."):
        return True
    word = _LAST_WORD.search(text, max(0, match.start() - 12), match.start())
    if word is None:
        return True
    last = word.group().lower()
    is_initial = len(last) == 1 and last.isalpha() and word.group().isupper()
    return not (is_initial or last in _ABBREVIATIONS)


def _trimmed(text: str, spans: Iterator[Span], *, keep_indent: bool = False) -> Iterator[Span]:
    for span_start, span_end in spans:
        start, end = span_start, span_end
        while end > start and text[end - 1].isspace():
            end -= 1
        while start < end and text[start].isspace():
            start += 1
        if end > start:
            if keep_indent:
                while start > span_start and text[start - 1] in " \t":
                    start -= 1
            yield start, end
