"""The database file: its tables, its version, its opening and its migration.

Law: a file that is no index, or a newer one, is refused untouched; an older one is migrated in one
transaction after a copy was made; whatever SQLite reports leaves here as
:class:`~specrag_native.errors.IndexStoreError`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from specrag_native.errors import IndexStoreError

DATABASE = "index.db"
APPLICATION_ID = 0x53524147  # "SRAG"
SCHEMA_VERSION = 1

# Vectors are float16: half the size of float32, and the rounding (2^-11 of each component) moves
# a cosine of 384 components by less than 0.0005, far below what separates two ranks that matter.
# A document's text is NULL when its single passage is the whole text; else zlib-compressed UTF-8.
# AUTOINCREMENT: a passage id is never used again, which lets derived indexes be patched.
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    checked_ns INTEGER NOT NULL,
    sha256 BLOB,
    recipe TEXT NOT NULL,
    reason TEXT,
    note TEXT
);
CREATE INDEX sources_sha256 ON sources(sha256);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL REFERENCES sources(id),
    key TEXT,
    title TEXT,
    text BLOB,
    n_chars INTEGER NOT NULL
);
CREATE INDEX documents_source ON documents(source_id);
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    vector BLOB NOT NULL
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id INTEGER NOT NULL REFERENCES documents(id),
    start_char INTEGER NOT NULL,
    end_char INTEGER NOT NULL,
    page INTEGER,
    vector_id INTEGER NOT NULL REFERENCES vectors(id),
    text TEXT NOT NULL
);
CREATE INDEX passages_document ON passages(document_id);
CREATE INDEX passages_vector ON passages(vector_id);
CREATE TABLE removed (passage_id INTEGER PRIMARY KEY);
CREATE VIEW passage_text AS
    SELECT p.id AS id, d.title AS title, p.text AS text
    FROM passages p JOIN documents d ON d.id = p.document_id;
CREATE VIRTUAL TABLE fulltext USING fts5(
    title, text, content='passage_text', content_rowid='id',
    tokenize='porter unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE vocabulary USING fts5vocab('fulltext', 'row');
"""

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: Mapping[int, Migration] = {}
"""For each older version, what turns it into the next one."""


@contextlib.contextmanager
def reported(directory: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into one line about the index."""
    try:
        yield
    except sqlite3.Error as error:
        raise IndexStoreError(_explain(directory, str(error))) from error
    except OSError as error:
        raise IndexStoreError(_explain(directory, error.strerror or str(error))) from error


def _explain(directory: Path, message: str) -> str:
    lowered = message.lower()
    if "full" in lowered or "no space left" in lowered:
        return f"no space left for the index {directory}: nothing was lost; free some, run again"
    if "readonly" in lowered or "read-only" in lowered or "permission denied" in lowered:
        return f"the index {directory} cannot be written ({message}): check its permissions"
    if "locked" in lowered or "busy" in lowered:
        return f"the index {directory} is being written by another process: try again later"
    if "malformed" in lowered or "not a database" in lowered or "no such table" in lowered:
        return (
            f"{directory / DATABASE} is damaged or no index ({message}): "
            "move it away and run specrag index again"
        )
    return f"the index {directory} cannot be used: {message}"


def create_database(directory: Path, *, embedder: str, dim: int) -> None:
    """Make an empty index in ``directory``: built beside, then renamed into place."""
    check_free(directory)
    with reported(directory):
        directory.mkdir(parents=True, exist_ok=True)
        new = directory / f"{DATABASE}.new"
        new.unlink(missing_ok=True)
        connection = sqlite3.connect(new, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.executescript(
                f"BEGIN; {_TABLES} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
            facts = {"embedder": embedder, "dim": dim, "generation": 0}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
        finally:
            connection.close()
        # Nobody means to commit an index, and the folder above may be a repository.
        (directory / ".gitignore").write_text("*\n", encoding="utf-8")
        new.replace(directory / DATABASE)
        sync_directory(directory)


def _ours(name: str) -> bool:
    return name.startswith((DATABASE, "writer.", "vectors-")) or name == ".gitignore"


def exists(directory: Path) -> bool:
    """Return whether ``directory`` holds a database with an index's name."""
    return (directory / DATABASE).is_file()


def check_free(directory: Path) -> None:
    """Raise unless an index can be made in ``directory``: new, empty, or left by a killed try."""
    with reported(directory):
        if not directory.exists():
            return
        if not directory.is_dir():
            raise IndexStoreError(f"{directory} is a file: name a folder with --index")
        strangers = sorted(p.name for p in directory.iterdir() if not _ours(p.name))
    if strangers:
        raise IndexStoreError(
            f"{directory} holds other files ({strangers[0]}) and no index: "
            "name an empty or a new folder with --index"
        )


def check_database(directory: Path) -> None:
    """Raise unless ``directory`` holds an index of this schema version or an older one."""
    path = directory / DATABASE
    if not path.is_file():
        what = "is no folder" if directory.exists() and not directory.is_dir() else "holds no index"
        raise IndexStoreError(
            f"{directory} {what}: make an index with specrag index PATH --index {directory}"
        )
    with reported(directory), contextlib.closing(_open(path, write=False)) as connection:
        _version(connection, directory)


def connect(directory: Path, *, write: bool) -> sqlite3.Connection:
    """Open the database of ``directory`` and check that it is an index of this schema version.

    A writer's connection migrates an older schema; a reader's refuses it.
    """
    path = directory / DATABASE
    if write or not path.is_file():
        check_database(directory)  # a writer's first statement would already change the file
    with reported(directory):
        connection = _open(path, write=write)
        try:
            _check(connection, directory, write=write)
        except BaseException:
            connection.close()
            raise
        return connection


def _open(path: Path, *, write: bool) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    if write:
        connection = sqlite3.connect(
            f"{uri}?mode=rw", uri=True, isolation_level=None, timeout=30, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-65536")
        return connection
    try:
        connection = _connect_reader(f"{uri}?mode=ro")
    except sqlite3.OperationalError:
        # A write-ahead log needs a shared-memory file; where none can be made (read-only disk)
        # nothing is being written either, and the file is read as it stands.
        if os.access(path.parent, os.W_OK):
            raise
        connection = _connect_reader(f"{uri}?immutable=1")
    return connection


def _connect_reader(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=30, check_same_thread=False
    )
    connection.execute("PRAGMA query_only=1")
    connection.execute("PRAGMA cache_size=-16384")
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, directory: Path) -> int:
    """Return the schema version; raise for another program's database and for a newer version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise IndexStoreError(
            f"{directory / DATABASE} is a database of another program: "
            "name another folder with --index"
        )
    if version > SCHEMA_VERSION:
        raise IndexStoreError(
            f"the index {directory} has schema version {version}, made by a newer specrag; "
            f"this one reads up to {SCHEMA_VERSION}: upgrade specrag-native"
        )
    return int(version)


def _check(connection: sqlite3.Connection, directory: Path, *, write: bool) -> None:
    version = _version(connection, directory)
    if version == SCHEMA_VERSION:
        return
    if not write:
        raise IndexStoreError(
            f"the index {directory} has the older schema version {version}: "
            "run specrag index once to migrate it"
        )
    migrate(connection, directory, version)


def migrate(connection: sqlite3.Connection, directory: Path, version: int) -> None:
    """Bring an older schema up to date in one transaction, after copying the database."""
    missing = [v for v in range(version, SCHEMA_VERSION) if v not in MIGRATIONS]
    if missing:
        raise IndexStoreError(
            f"the index {directory} has schema version {version}, too old to migrate: "
            "move it away and run specrag index again"
        )
    copy = directory / f"{DATABASE}.v{version}"
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(directory / DATABASE, copy)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version, SCHEMA_VERSION):
            MIGRATIONS[step](connection)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` outlast a power cut, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
