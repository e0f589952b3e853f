"""Reading the index: SQLite is the single source of truth.

Law: every read sees one committed state; readers never block and are never blocked; whatever a
derived index says counts only if the row is here.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specrag_native.errors import IndexStoreError
from specrag_native.retrieval.store_schema import connect, create_database, reported
from specrag_native.types import Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from specrag_native.types import FloatArray

    IdArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class State:
    """Which committed state a read sees, and which derived vector file belongs to it."""

    generation: int
    vectors_file: str | None
    vectors_upto: int
    """Largest passage id that the derived file holds."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What the index knows of one file."""

    path: str
    documents: int
    passages: int
    reason: str | None
    """Why the file was skipped; ``None`` for an indexed file."""
    note: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How much an index holds."""

    sources: int
    skipped: int
    documents: int
    passages: int


def absolute_path(path: Path) -> str:
    """Return ``path`` made absolute, ``..`` resolved, symbolic links kept."""
    return os.path.abspath(path)  # noqa: PTH100


class Paths:
    """Names of files inside the index.

    Files below the folder that holds the index are named relative to it, so that the folder can be
    moved with its index; others are named absolutely.
    """

    def __init__(self, directory: Path) -> None:
        self.base = os.path.dirname(absolute_path(directory))  # noqa: PTH120

    def key(self, path: Path) -> bytes:
        """Return the stored name of ``path``, in the file system's own bytes."""
        absolute = absolute_path(path)
        prefix = self.base.rstrip(os.sep) + os.sep
        if absolute == self.base:
            return b"."
        inside = absolute.startswith(prefix)
        return os.fsencode(absolute[len(prefix) :] if inside else absolute)

    def path(self, key: bytes) -> Path:
        """Return the file that a stored name stands for."""
        return Path(self.base) / os.fsdecode(key)


def display(key: bytes) -> str:
    """Return a stored name as text that can be printed and encoded."""
    return key.decode("utf-8", "backslashreplace")


def document_name(key: bytes, document_key: str | None) -> str:
    """Return the name of a document: its file, and its key where a file holds several."""
    return display(key) if document_key is None else f"{display(key)}#{document_key}"


class Store:
    """Reads one index from any number of threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = Paths(directory)
        self._pool: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False
        with self.read() as connection:
            facts = dict(connection.execute("SELECT key, value FROM meta"))
        self.embedder = str(facts["embedder"])
        self.dim = int(facts["dim"])

    @classmethod
    def create(cls, directory: Path, *, embedder: str, dim: int) -> Store:
        """Make an empty index and open it."""
        create_database(directory, embedder=embedder, dim=dim)
        return cls(directory)

    def require_embedder(self, name: str) -> None:
        """Raise unless the index was made by the embedder called ``name``."""
        check_embedder(self.directory, self.embedder, name)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a read transaction."""
        if self._closed:
            raise IndexStoreError(f"the index {self.directory} is closed")
        try:
            connection = self._pool.get_nowait()
        except queue.Empty:
            connection = connect(self.directory, write=False)
        try:
            with reported(self.directory):
                connection.execute("BEGIN")
                yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if self._closed:
                connection.close()
            else:
                self._pool.put(connection)

    def close(self) -> None:
        """Close every connection; reading afterwards raises."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._pool.get_nowait().close()

    def counts(self) -> Counts:
        """Return how much the index holds."""
        with self.read() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM sources WHERE reason IS NULL),"
                " (SELECT count(*) FROM sources WHERE reason IS NOT NULL),"
                " (SELECT count(*) FROM documents), (SELECT count(*) FROM passages)"
            ).fetchone()
        return Counts(*row)

    def sources(self) -> list[SourceInfo]:
        """Return every file the index knows, by name."""
        with self.read() as connection:
            rows = connection.execute(
                "SELECT s.path, count(DISTINCT d.id), count(p.id), s.reason, s.note FROM sources s"
                " LEFT JOIN documents d ON d.source_id = s.id"
                " LEFT JOIN passages p ON p.document_id = d.id GROUP BY s.id ORDER BY s.path"
            ).fetchall()
        return [SourceInfo(display(path), *rest) for path, *rest in rows]

    def roots(self) -> list[Path]:
        """Return the files and folders that were given to be indexed."""
        with self.read() as connection:
            rows = connection.execute("SELECT path FROM roots ORDER BY path").fetchall()
        return [self.paths.path(key) for (key,) in rows]

    def document_text(self, name: str) -> str | None:
        """Return the extracted text of the document called ``name``; ``None`` if unknown."""
        with self.read() as connection:
            found = _find_document(connection, name)
            return None if found is None else _text_of(connection, found)

    def document_of(self, passage_id: str) -> str | None:
        """Return the extracted text of the document that holds a passage; ``None`` if unknown."""
        with self.read() as connection:
            row = connection.execute(
                "SELECT document_id FROM passages WHERE id = ?", (passage_id,)
            ).fetchone()
            return None if row is None else _text_of(connection, row[0])

    def document_passages(self, name: str) -> list[Passage]:
        """Return the passages of the document called ``name``, in order."""
        with self.read() as connection:
            found = _find_document(connection, name)
            if found is None:
                return []
            ids = [
                row[0]
                for row in connection.execute(
                    "SELECT id FROM passages WHERE document_id = ? ORDER BY start_char", (found,)
                )
            ]
            rows = fetch_passages(connection, ids)
        return [rows[i][0] for i in ids]

    def all_passages(self) -> Iterator[Passage]:
        """Yield every passage, in the order they were stored; what goes meanwhile is left out."""
        with self.read() as connection:
            ids = list(all_ids(connection, "passages", "id"))
        for i in range(0, len(ids), 500):
            block = ids[i : i + 500]
            with self.read() as connection:
                rows = fetch_passages(connection, block)
            yield from (rows[key][0] for key in block if key in rows)


def check_embedder(directory: Path, stored: str, name: str) -> None:
    """Raise unless ``name`` is the embedder that the index was made by."""
    if name != stored:
        raise IndexStoreError(
            f"the index {directory} was made by the embedder {stored}, not by {name}: "
            "use that embedder, or make a new index with --index DIR"
        )


_PASSAGE_COLUMNS = (
    "SELECT p.id, s.path, d.key, d.title, p.text, p.start_char, p.end_char, p.page, v.vector"
    " FROM passages p JOIN documents d ON d.id = p.document_id"
    " JOIN sources s ON s.id = d.source_id JOIN vectors v ON v.id = p.vector_id"
)


def fetch_passages(
    connection: sqlite3.Connection, ids: Sequence[int]
) -> dict[int, tuple[Passage, FloatArray]]:
    """Return passages with their vectors by id; ids that are gone are left out."""
    found: dict[int, tuple[Passage, FloatArray]] = {}
    for i in range(0, len(ids), 500):
        block = ids[i : i + 500]
        marks = ",".join("?" * len(block))
        for row in connection.execute(f"{_PASSAGE_COLUMNS} WHERE p.id IN ({marks})", block):
            key, path, document_key, title, text, start, end, page, blob = row
            name = document_name(path, document_key)
            passage = Passage(
                id=str(key),
                document=name,
                title=title or file_title(path),
                text=text,
                start=start,
                end=end,
                page=page,
            )
            found[key] = passage, vector_from_blob(blob)
    return found


def file_title(path: bytes) -> str:
    """Return the title of a document that has none of its own: its file's name."""
    return display(path.rpartition(b"/")[2])


def read_state(connection: sqlite3.Connection) -> State:
    """Return the state this connection's transaction sees."""
    facts = dict(connection.execute("SELECT key, value FROM meta"))
    return State(
        generation=int(facts["generation"]),
        vectors_file=facts.get("vectors_file"),
        vectors_upto=int(facts.get("vectors_upto", 0)),
    )


def vectors_after(
    connection: sqlite3.Connection, after: int, *, block: int = 8192
) -> Iterator[tuple[IdArray, FloatArray]]:
    """Yield ids and vectors of the passages with larger ids than ``after``, in order, in blocks."""
    import numpy as np

    cursor = connection.execute(
        "SELECT p.id, v.vector FROM passages p JOIN vectors v ON v.id = p.vector_id"
        " WHERE p.id > ? ORDER BY p.id",
        (after,),
    )
    while rows := cursor.fetchmany(block):
        ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        halves = np.frombuffer(b"".join(row[1] for row in rows), dtype="<f2")
        yield ids, normalised(halves.reshape(len(rows), -1).astype(np.float32))


def vector_to_blob(vectors: FloatArray) -> list[bytes]:
    """Return each row as it is stored: little-endian float16."""
    halves = vectors.astype("<f2")
    return [row.tobytes() for row in halves]


def vector_from_blob(blob: bytes) -> FloatArray:
    """Return a stored vector as float32 of length one."""
    import numpy as np

    vector: FloatArray = np.frombuffer(blob, dtype="<f2").astype(np.float32)
    unit: FloatArray = normalised(vector[None, :])[0]
    return unit


def normalised(vectors: FloatArray) -> FloatArray:
    """Return rows divided by their length; a row of zeros stays."""
    import numpy as np

    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    lengths[lengths == 0] = 1
    result: FloatArray = (vectors / lengths).astype(np.float32, copy=False)
    return result


def all_ids(connection: sqlite3.Connection, table: str, column: str) -> Iterable[int]:
    """Return one integer column of a table, in order."""
    return (row[0] for row in connection.execute(f"SELECT {column} FROM {table} ORDER BY {column}"))


def _find_document(connection: sqlite3.Connection, name: str) -> int | None:
    parts = name.split("#")
    for i in range(len(parts), 0, -1):
        path = "#".join(parts[:i])
        key = "#".join(parts[i:]) if i < len(parts) else None
        row = connection.execute(
            "SELECT d.id FROM sources s JOIN documents d ON d.source_id = s.id"
            " WHERE s.path = ? AND d.key IS ? ORDER BY d.id",
            (path.encode("utf-8", "surrogateescape"), key),
        ).fetchone()
        if row is not None:
            return int(row[0])
    return None


def _text_of(connection: sqlite3.Connection, document_id: int) -> str:
    (blob,) = connection.execute(
        "SELECT text FROM documents WHERE id = ?", (document_id,)
    ).fetchone()
    if blob is not None:
        return zlib.decompress(blob).decode("utf-8")
    row = connection.execute(
        "SELECT text FROM passages WHERE document_id = ?", (document_id,)
    ).fetchone()
    return str(row[0]) if row else ""
