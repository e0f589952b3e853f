"""Writing the index.

Law: one source file is one transaction; a writer that is killed between two statements leaves the
state before the file or the state after it, and the vectors it had computed are kept either way.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specrag_native.errors import IndexStoreError
from specrag_native.ingest.document import Document
from specrag_native.retrieval import vector_index
from specrag_native.retrieval.chunking import ChunkOptions
from specrag_native.retrieval.lock import writer_lock
from specrag_native.retrieval.store import Paths, check_embedder, read_state, vector_to_blob
from specrag_native.retrieval.store_schema import check_database, connect, reported
from specrag_native.sentences import Span

if TYPE_CHECKING:
    from specrag_native.types import FloatArray

_REBUILD_AFTER = 2000
"""An inverted file is brought up to date once so many passages are newer than it, or gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file as the index remembers it.

    ``recipe`` names the reader, its version and the passage length: another recipe means the file
    is read again. ``reason`` says why it was skipped.
    """

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: bytes | None
    recipe: str
    checked_ns: int = 0
    reason: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class CutDocument:
    """A document with its passages: their spans, and the hash of what was embedded for each."""

    document: Document
    spans: Sequence[Span]
    hashes: Sequence[bytes]


class VectorMissing(Exception):
    """A passage has no vector: its file changed between two readings."""


class StoreWriter:
    """The one writer of an index; use :func:`open_writer`."""

    def __init__(self, directory: Path, connection: sqlite3.Connection) -> None:
        self.directory = directory
        self.paths = Paths(directory)
        self._connection = connection
        facts = dict(connection.execute("SELECT key, value FROM meta"))
        self.embedder = str(facts["embedder"])
        self.dim = int(facts["dim"])

    def require_embedder(self, name: str) -> None:
        """Raise unless the index was made by the embedder called ``name``."""
        check_embedder(self.directory, self.embedder, name)

    def chunking(self, wanted: ChunkOptions | None) -> ChunkOptions:
        """Return how this index cuts passages, after changing it to ``wanted`` if that is given."""
        with self.transaction() as connection:
            facts = dict(connection.execute("SELECT key, value FROM meta"))
            default = ChunkOptions()
            if wanted is None:
                return ChunkOptions(
                    words=int(facts.get("words", default.words)),
                    overlap=int(facts.get("overlap", default.overlap)),
                )
            values = {"words": wanted.words, "overlap": wanted.overlap}
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
            return wanted

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a block in one write transaction; an exception undoes it."""
        connection = self._connection
        with reported(self.directory):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    # Sources

    def sources(self) -> dict[bytes, Source]:
        """Return every file the index remembers, by stored name."""
        with reported(self.directory):
            rows = self._connection.execute(
                "SELECT path, size, mtime_ns, ctime_ns, sha256, recipe, checked_ns, reason, note"
                " FROM sources"
            ).fetchall()
        return {
            row[0]: Source(
                path=row[0],
                size=row[1],
                mtime_ns=row[2],
                ctime_ns=row[3],
                sha256=row[4],
                recipe=row[5],
                checked_ns=row[6],
                reason=row[7],
                note=row[8],
            )
            for row in rows
        }

    def roots(self) -> list[Path]:
        """Return the files and folders that were given to be indexed."""
        with reported(self.directory):
            rows = self._connection.execute("SELECT path FROM roots ORDER BY path").fetchall()
        return [self.paths.path(key) for (key,) in rows]

    def touch(self, source: Source) -> None:
        """Remember new times of a file whose content has not changed."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE sources SET size = ?, mtime_ns = ?, ctime_ns = ?, checked_ns = ?"
                " WHERE path = ?",
                (
                    source.size,
                    source.mtime_ns,
                    source.ctime_ns,
                    source.checked_ns,
                    source.path,
                ),
            )

    def move(self, old: bytes, source: Source) -> None:
        """Give the file ``old`` its new name and times; its content stays as it is."""
        with self.transaction() as connection:
            for row in connection.execute(
                "SELECT id FROM sources WHERE path = ?", (source.path,)
            ).fetchall():
                self._drop(connection, row[0])
            connection.execute(
                "UPDATE sources SET path = ?, size = ?, mtime_ns = ?, ctime_ns = ?, checked_ns = ?"
                " WHERE path = ?",
                (
                    source.path,
                    source.size,
                    source.mtime_ns,
                    source.ctime_ns,
                    source.checked_ns,
                    old,
                ),
            )
            _advance(connection)

    def replace(self, source: Source, documents: Iterable[CutDocument]) -> tuple[int, int]:
        """Put a file in place of what was known of it; return its documents and passages.

        Raises :class:`VectorMissing`, with nothing changed, when a passage was never embedded.
        """
        n_documents = n_passages = 0
        with self.transaction() as connection:
            source_id = self._put_source(connection, source)
            for cut in documents:
                n_documents += 1
                n_passages += self._put_document(connection, source_id, cut)
            _advance(connection)
        return n_documents, n_passages

    def skip(self, source: Source) -> None:
        """Remember a file that cannot be read, with its reason, in place of its old content."""
        if source.reason is None:
            raise ValueError("a skipped file needs a reason")
        self.replace(source, ())

    def remove(self, paths: Iterable[bytes]) -> int:
        """Forget files; return how many the index knew."""
        known = 0
        for path in paths:
            with self.transaction() as connection:
                row = connection.execute(
                    "SELECT id FROM sources WHERE path = ?", (path,)
                ).fetchone()
                if row is not None:
                    known += 1
                    self._drop(connection, row[0])
                    _advance(connection)
        return known

    def add_roots(self, paths: Iterable[bytes]) -> None:
        """Remember what was given to be indexed."""
        with self.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO roots VALUES (?)", [(path,) for path in paths]
            )

    def remove_root(self, path: bytes) -> None:
        """Forget a file or folder that was given to be indexed."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM roots WHERE path = ?", (path,))

    # Vectors

    def known_vectors(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Return those of ``hashes`` whose vectors are stored."""
        wanted = list(set(hashes))
        known: set[bytes] = set()
        with reported(self.directory):
            for i in range(0, len(wanted), 500):
                block = wanted[i : i + 500]
                marks = ",".join("?" * len(block))
                rows = self._connection.execute(
                    f"SELECT hash FROM vectors WHERE hash IN ({marks})", block
                )
                known.update(row[0] for row in rows)
        return known

    def add_vectors(self, hashes: Sequence[bytes], vectors: FloatArray) -> None:
        """Store vectors by the hash of their text, in one transaction."""
        if vectors.shape != (len(hashes), self.dim):
            raise IndexStoreError(
                f"the embedder returned vectors of shape {vectors.shape}, "
                f"the index {self.directory} wants {(len(hashes), self.dim)}: "
                "make a new index with --index DIR"
            )
        with self.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO vectors(hash, vector) VALUES (?, ?)",
                zip(hashes, vector_to_blob(vectors), strict=True),
            )

    def finish(self) -> None:
        """Drop vectors that no passage uses, and bring the derived index up to date."""
        with self.transaction() as connection:
            connection.execute(
                "DELETE FROM vectors WHERE id NOT IN (SELECT vector_id FROM passages)"
            )
        self.update_derived()
        with reported(self.directory):
            self._connection.execute("PRAGMA optimize")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def compact(self) -> None:
        """Write the full-text and vector indexes anew and give unused space back."""
        with self.transaction() as connection:
            connection.execute("INSERT INTO fulltext(fulltext) VALUES ('rebuild')")
        self.update_derived(force=True)
        with reported(self.directory):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def update_derived(self, *, force: bool = False) -> None:
        """Write the derived vector index anew where it is missing or too far behind."""
        connection = self._connection
        with reported(self.directory):
            state = read_state(connection)
            if not force and not self._is_stale():
                vector_index.remove_stale(self.directory, state.vectors_file)
                return
            name = vector_index.write(connection, self.directory, dim=self.dim, state=state)
        with self.transaction():
            facts = {"vectors_file": name, "vectors_upto": _largest_id(connection)}
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", facts.items())
            connection.execute("DELETE FROM removed")
            connection.execute("INSERT INTO fulltext(fulltext) VALUES ('optimize')")
        vector_index.remove_stale(self.directory, name)

    def _is_stale(self) -> bool:
        connection = self._connection
        state = read_state(connection)
        if state.vectors_file is None or not (self.directory / state.vectors_file).is_file():
            return True
        (tail,) = connection.execute(
            "SELECT count(*) FROM passages WHERE id > ?", (state.vectors_upto,)
        ).fetchone()
        (gone,) = connection.execute("SELECT count(*) FROM removed").fetchone()
        (count,) = connection.execute("SELECT count(*) FROM passages").fetchone()
        allowed = _REBUILD_AFTER if count > vector_index.FLAT_UPTO else 0
        return bool(tail + gone > allowed)

    # Rows

    def _put_source(self, connection: sqlite3.Connection, source: Source) -> int:
        row = connection.execute("SELECT id FROM sources WHERE path = ?", (source.path,)).fetchone()
        if row is not None:
            self._drop(connection, row[0])
        cursor = connection.execute(
            "INSERT INTO sources(path, size, mtime_ns, ctime_ns, checked_ns, sha256, recipe,"
            " reason, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                source.path,
                source.size,
                source.mtime_ns,
                source.ctime_ns,
                source.checked_ns or time.time_ns(),
                source.sha256,
                source.recipe,
                source.reason,
                source.note,
            ),
        )
        return int(cursor.lastrowid or 0)

    def _put_document(
        self, connection: sqlite3.Connection, source_id: int, cut: CutDocument
    ) -> int:
        document = cut.document
        whole = len(cut.spans) == 1 and cut.spans[0] == (0, len(document.text))
        stored = None if whole else zlib.compress(document.text.encode("utf-8"))
        cursor = connection.execute(
            "INSERT INTO documents(source_id, key, title, text, n_chars) VALUES (?, ?, ?, ?, ?)",
            (source_id, document.key, document.title, stored, len(document.text)),
        )
        document_id = cursor.lastrowid
        for (start, end), text_hash in zip(cut.spans, cut.hashes, strict=True):
            row = connection.execute(
                "SELECT id FROM vectors WHERE hash = ?", (text_hash,)
            ).fetchone()
            if row is None:
                raise VectorMissing(document.key or "")
            text = document.text[start:end]
            cursor = connection.execute(
                "INSERT INTO passages(document_id, start_char, end_char, page, vector_id, text)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (document_id, start, end, document.page_of(start), row[0], text),
            )
            connection.execute(
                "INSERT INTO fulltext(rowid, title, text) VALUES (?, ?, ?)",
                (cursor.lastrowid, document.title, text),
            )
        return len(cut.spans)

    def _drop(self, connection: sqlite3.Connection, source_id: int) -> None:
        """Delete a file with all that hangs on it; its vectors stay until :meth:`finish`."""
        inside = "IN (SELECT id FROM documents WHERE source_id = ?)"
        connection.execute(
            "INSERT INTO fulltext(fulltext, rowid, title, text)"
            " SELECT 'delete', p.id, d.title, p.text FROM passages p"
            " JOIN documents d ON d.id = p.document_id WHERE d.source_id = ?",
            (source_id,),
        )
        upto = read_state(connection).vectors_upto
        connection.execute(
            "INSERT OR IGNORE INTO removed SELECT id FROM passages"
            f" WHERE document_id {inside} AND id <= ?",
            (source_id, upto),
        )
        connection.execute(f"DELETE FROM passages WHERE document_id {inside}", (source_id,))
        connection.execute("DELETE FROM documents WHERE source_id = ?", (source_id,))
        connection.execute("DELETE FROM sources WHERE id = ?", (source_id,))


@contextlib.contextmanager
def open_writer(directory: Path, *, wait_s: float = 0.0) -> Iterator[StoreWriter]:
    """Hold an existing index for writing, waiting at most ``wait_s`` seconds for another writer."""
    check_database(directory)  # a foreign folder gets no lock file
    with writer_lock(directory, wait_s=wait_s):
        connection = connect(directory, write=True)
        try:
            yield StoreWriter(directory, connection)
        finally:
            connection.close()


def _advance(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")


def _largest_id(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT max(id) FROM passages").fetchone()
    return int(row[0] or 0)
