"""Files to text: one module per family of formats, all behind :func:`reader_for`.

Law: reading a file either yields documents whose text is final (every later offset points into
it) or raises :class:`~specrag_native.errors.DocumentError` with a reason a person understands;
nothing a file contains may end the run.
"""

from __future__ import annotations

from specrag_native.ingest.document import Document, ReadLimits
from specrag_native.ingest.reading import read_documents
from specrag_native.ingest.registry import Reader, reader_for, readers, register

__all__ = [
    "Document",
    "ReadLimits",
    "Reader",
    "read_documents",
    "reader_for",
    "readers",
    "register",
]
