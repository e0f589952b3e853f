"""Plain text, light markup and source code.

Law: the extracted text is the decoded file, character for character (only a byte order mark is
dropped), so offsets into it are offsets into the file.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import Document, ReadLimits, clean, tidy_title

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEADING = re.compile(r"(?:\A|\n)#{1,6}[ \t]+([^\n]{1,300})")
_UNDERLINED = re.compile(r"(?:\A|\n)([^\n]{1,200})\n(?:={3,}|-{3,}|~{3,}|\*{3,})[ \t\r]*(?:\n|\Z)")
_TITLE_WITHIN = 4000
"""A title stands in the first characters of a file."""


def decode(data: bytes, limits: ReadLimits) -> str:
    """Return the text of ``data``: by its byte order mark, else UTF-8, else ``limits.encoding``."""
    if len(data) > 4 * limits.text_chars:
        raise DocumentError(f"its text has more than {limits.text_chars} characters")
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return clean(data[len(bom) :].decode(encoding, "replace"))
    if b"\x00" in data[:65536]:
        raise DocumentError("not text (it holds zero bytes)")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if limits.encoding is None:
            raise DocumentError(
                f"not UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start}): "
                "save it as UTF-8, or name its encoding with --encoding"
            ) from None
        text = data.decode(limits.encoding, "replace")
    return clean(text)


def read_text(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the one document of a text file."""
    yield Document(decode(path.read_bytes(), limits))


def read_markup(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the one document of a Markdown or reStructuredText file, titled by its heading."""
    text = decode(path.read_bytes(), limits)
    yield Document(text, title=heading(text))


def read_code(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the one document of a source file, to be cut at line ends."""
    yield Document(decode(path.read_bytes(), limits), layout="lines")


def heading(text: str) -> str | None:
    """Return the first heading of light markup, or ``None``."""
    head = text[:_TITLE_WITHIN]
    found = [m for m in (_HEADING.search(head), _UNDERLINED.search(head)) if m is not None]
    if not found:
        return None
    first = min(found, key=lambda match: match.start())
    return tidy_title(first.group(1).rstrip("#"))
