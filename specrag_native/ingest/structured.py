"""JSON and JSON lines.

Law: every row is a document of its own; a row's text is its ``text`` (or the like), verbatim, and
a row without one is written out as ``name: value`` lines.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from specrag_native.errors import DocumentError
from specrag_native.ingest.document import Document, ReadLimits, clean, tidy_title
from specrag_native.ingest.plain import decode

_TEXT_KEYS = ("text", "content", "contents", "body", "passage")
_TITLE_KEYS = ("title", "name", "heading")
_ID_KEYS = ("id", "_id", "docid", "key")
_LINE_BYTES = 32 * 1024 * 1024
_DEPTH = 64


def read_jsonl(path: Path, limits: ReadLimits) -> Generator[Document, None, str | None]:
    """Yield one document per line, streaming; lines that are no JSON are counted and left out."""
    broken = 0
    found = 0
    first_error = ""
    size = max(1, path.stat().st_size)
    try:
        with path.open("rb") as raw, _unpacked(path, raw) as file:
            for number, line in enumerate(_lines(file), start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    broken += 1
                    first_error = first_error or f"line {number}: {error}"
                    continue
                found += 1
                document = _row(row, str(number), limits)
                if document is not None:
                    yield replace(document, read_share=min(1.0, raw.tell() / size))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DocumentError(f"broken gzip file ({error})") from None
    if broken and not found:
        raise DocumentError(f"no line is JSON ({first_error})")
    if broken:
        return f"{broken} lines are no JSON and were left out ({first_error})"
    return None


def read_json(path: Path, limits: ReadLimits) -> Iterator[Document]:
    """Yield the rows of a JSON list of objects, or the one document of any other JSON."""
    try:
        value = json.loads(decode(path.read_bytes(), limits))
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"no JSON ({error})") from None
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        for number, row in enumerate(value, start=1):
            document = _row(row, str(number), limits)
            if document is not None:
                yield document
        return
    document = _row(value, None, limits)
    if document is not None:
        yield document


def _unpacked(path: Path, raw: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    return gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw


def _lines(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Yield lines; one longer than the limit fails the file instead of filling the memory."""
    while line := file.readline(_LINE_BYTES):
        if len(line) >= _LINE_BYTES and not line.endswith(b"\n"):
            raise DocumentError(f"a line is longer than {_LINE_BYTES // 2**20} MiB")
        yield line


def _row(value: Any, number: str | None, limits: ReadLimits) -> Document | None:
    if not isinstance(value, dict):
        text, title, key = "\n".join(_flatten(value, "", 0)), None, number
        layout = "lines"
    else:
        key = _first(value, _ID_KEYS, (str, int)) or number
        title = _first(value, _TITLE_KEYS, (str,))
        text = _first(value, _TEXT_KEYS, (str,))
        layout = "prose"
        if not text:
            text, title, layout = "\n".join(_flatten(value, "", 0)), title, "lines"
    text = clean(text)[: limits.text_chars]
    if not text.strip():
        return None
    return Document(
        text,
        title=tidy_title(title),
        key=clean(key)[:500] if key else None,
        layout="prose" if layout == "prose" else "lines",
    )


def _first(row: dict[Any, Any], names: tuple[str, ...], types: tuple[type, ...]) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, types) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return ""


def _flatten(value: Any, name: str, depth: int) -> Iterator[str]:
    if depth > _DEPTH:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _flatten(item, name, depth + 1)
    elif value is not None and value != "":
        text = str(value)
        yield f"{name}: {text}" if name else text
