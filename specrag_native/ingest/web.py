"""Web pages, by the standard library's tolerant HTML parser.

Law: what a reader of the page sees becomes text, block by block; what only machines read (scripts,
styles, templates) does not.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import Document, ReadLimits, clean, tidy_title

_HIDDEN = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object"})
_BLOCKS = frozenset(
    [
        *("p", "div", "section", "article", "header", "footer", "main", "aside", "nav"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "dt", "dd", "li"),
        *("blockquote", "figure", "figcaption", "table", "form", "fieldset", "address"),
        *("hr", "body", "details", "summary", "caption", "tr", "pre"),
    ]
)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_-]{2,40})", re.I)
_SPACE = re.compile(r"[ \t\r\n\f\v]+")


class _Page(HTMLParser):
    """Collects the blocks of a page in reading order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self.title = ""
        self.heading = ""
        self._inline: list[str] = []
        self._hidden = 0
        self._preformatted = 0
        self._in_title = False
        self._prefix = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag == "title":
            self._in_title = True
        elif tag == "br":
            self._inline.append("\n")
        elif tag in ("td", "th"):
            if self._inline and "".join(self._inline).strip():
                self._inline.append("; ")
        elif tag in _BLOCKS:
            self.end_block()
            self._prefix = "- " if tag == "li" else ""
            if tag == "pre":
                self._preformatted += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br" or tag in _BLOCKS:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag == "title":
            self._in_title = False
        elif tag in _BLOCKS:
            text = self.end_block()
            if tag in _HEADINGS and not self.heading:
                self.heading = text
            if tag == "pre":
                self._preformatted = max(0, self._preformatted - 1)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data[:1000]
        elif not self._hidden:
            self._inline.append(data if self._preformatted else _SPACE.sub(" ", data))

    def end_block(self) -> str:
        """Close the block that is being read; return its text."""
        text = "".join(self._inline)
        if not self._preformatted:
            text = "\n".join(" ".join(line.split(" ")).strip() for line in text.split("\n"))
            text = re.sub(" {2,}", " ", text)
        text = text.strip("\n") if self._preformatted else text.strip()
        self._inline = []
        if text.strip():
            self.blocks.append(self._prefix + text)
        self._prefix = ""
        return text


def html_text(source: str) -> tuple[str, str | None]:
    """Return the readable text of a page and its title."""
    page = _Page()
    page.feed(source)
    page.close()
    page.end_block()
    return clean("\n\n".join(page.blocks)), tidy_title(page.title) or tidy_title(page.heading)


def decode_html(data: bytes, limits: ReadLimits) -> str:
    """Return the source of a page: by byte order mark, ``meta charset``, UTF-8, else cp1252."""
    for bom, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(bom):
            return data[len(bom) :].decode(encoding, "replace")
    declared = _CHARSET.search(data[:4096])
    names = [declared.group(1).decode("ascii")] if declared else []
    for name in (*names, "utf-8", limits.encoding or "cp1252"):
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("utf-8", "replace")


def read_html(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the one document of a web page."""
    data = path.read_bytes()
    if b"\x00" in data[:4096] and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DocumentError("no web page (it holds zero bytes)")
    text, title = html_text(decode_html(data, limits))
    yield Document(text, title=title)
