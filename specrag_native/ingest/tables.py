"""Tables as text.

Law: a row becomes one line that names its columns (``name: Ada; born: 1815``), because a passage
is read without its table's head.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import Document, ReadLimits
from specrag_native.ingest.plain import decode

_FIELD_CHARS = 1024 * 1024


def read_csv(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the one document of a comma-, semicolon- or tab-separated file."""
    text = decode(path.read_bytes(), limits)
    csv.field_size_limit(_FIELD_CHARS)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), _dialect(path, text))
        table = table_text(rows)
    except csv.Error as error:
        raise DocumentError(f"no table ({error})") from None
    yield Document(table, layout="lines")


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as lines of ``column: value`` pairs; the first row that is not empty is the head.

    A table whose head holds a number, or a single row, is written without column names.
    """
    filled = [[" ".join(cell.split()) for cell in row] for row in rows]
    filled = [row for row in filled if any(row)]
    if not filled:
        return ""
    head = filled[0]
    if len(filled) == 1 or any(_is_number(cell) for cell in head) or not all(head):
        return "\n".join("; ".join(cell for cell in row if cell) for row in filled)
    lines = ["; ".join(head)]
    lines.extend("; ".join(_pairs(head, row)) for row in filled[1:])
    return "\n".join(lines)


def _pairs(head: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    for i, cell in enumerate(row):
        if cell:
            yield f"{head[i]}: {cell}" if i < len(head) and head[i] else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True


def _dialect(path: Path, text: str) -> type[csv.Dialect]:
    delimiters = "\t" if path.suffix.lower() == ".tsv" else ",;\t|"
    first = text[:4096].partition("\n")[0]
    best = max(delimiters, key=first.count)

    class Found(csv.excel):
        delimiter = best

    return Found
