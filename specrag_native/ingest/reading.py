"""Reads a file with its reader, under the limits.

Law: whatever a reader raises leaves here as :class:`DocumentError`, except a request to stop.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specrag_native.errors import DocumentError, SpecragError
from specrag_native.ingest.document import Document, ReadLimits, clean, tidy_title
from specrag_native.ingest.registry import Reader

if TYPE_CHECKING:
    from specrag_native.ingest.sandbox import Sandbox

log = logging.getLogger(__name__)

Reading = Generator[Document, None, "str | None"]
"""Yields documents and returns a note."""


def read_documents(
    path: Path, reader: Reader, *, limits: ReadLimits, sandbox: Sandbox | None = None
) -> Reading:
    """Yield the documents of ``path``; an isolated reader runs in ``sandbox`` when one is given.

    The generator's return value is a note for the report, or ``None``.
    """
    size = path.stat().st_size
    if size > limits.file_bytes and not reader.streamed:
        raise DocumentError(
            f"{size // 2**20} MiB is larger than the limit of {limits.file_bytes // 2**20} MiB "
            "(--max-file-mb)"
        )
    reader.require()
    if reader.isolated and sandbox is not None:
        return (yield from sandbox.read(path, reader, limits))
    return (yield from read_here(path, reader, limits))


def read_here(path: Path, reader: Reader, limits: ReadLimits) -> Reading:
    """Yield the documents of ``path``, read in this process."""
    try:
        return (yield from _checked(reader.load()(path, limits), limits))
    except (SpecragError, OSError):
        raise
    except RecursionError:
        raise DocumentError("nested too deeply") from None
    except MemoryError:
        raise DocumentError("needs more memory than a file may take") from None
    except Exception as error:  # a parser met something it was not written for
        log.debug("reader %s failed on %s", reader.name, path, exc_info=True)
        raise DocumentError(
            f"broken {reader.name} file ({type(error).__name__}: {str(error)[:200]})"
        ) from None


def _checked(documents: Iterable[Document], limits: ReadLimits) -> Reading:
    iterator = iter(documents)
    while True:
        try:
            document = next(iterator)
        except StopIteration as end:
            return end.value if isinstance(end.value, str) else None
        yield checked(document, limits)


def checked(document: Document, limits: ReadLimits) -> Document:
    """Return ``document`` with storable text, or raise when it is longer than allowed."""
    if len(document.text) > limits.text_chars:
        raise DocumentError(
            f"its text has {len(document.text)} characters, more than {limits.text_chars}"
        )
    text = clean(document.text)
    if text == document.text:
        return document
    return replace(document, text=text, title=tidy_title(document.title))
